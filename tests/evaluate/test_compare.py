"""The comparison against SciPy's and statsmodels' answers, simulations, and evaluations that must not be compared."""

import json
import random
import shutil

import pyarrow.parquet as pq
import pytest

from grhpc.cli import main
from grhpc.errors import CorruptFile, DataError, StoreError
from grhpc.evaluate.answered import read_evaluation
from grhpc.evaluate.compare import by_metric, compare, mcnemar, paired
from grhpc.evaluate.figures import Asked
from grhpc.store.transfer import describe
from tests.evaluated import NAN, entry, make_run, score, scores, write_evaluation

HOSTILE = "\x1b]0;owned\x07\u202e"


def pairs(first, second, group="g"):
    return [
        (Asked(str(i), tuple(a), {"g": group}), Asked(str(i), tuple(b), {"g": group}))
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]


def once(first, second):
    return pairs([[float(a)] for a in first], [[float(b)] for b in second])


@pytest.fixture
def two(tmp_path):
    """Two evaluations: of ten questions the first has the even ones right, the second nine."""
    first = write_evaluation(tmp_path / "first", scores([i % 2 == 0 for i in range(10)]))
    second = write_evaluation(tmp_path / "second", scores([i != 3 for i in range(10)]))
    return first, second


def read(*folders):
    return [read_evaluation(folder, folder.name) for folder in folders]


def test_one_sample_each_is_mcnemars_exact_test():
    found = paired(once([1, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0]))
    assert found["test"] == "McNemar"
    assert (found["first_only_right"], found["second_only_right"]) == (1, 3)
    assert found["p"] == 0.625 and found["difference"]["value"] == pytest.approx(2 / 6)


def test_mcnemar_p_is_that_of_statsmodels():
    assert mcnemar(40, 61, 500)["p"] == pytest.approx(0.04604406693)


def test_the_interval_of_bonett_and_price_by_hand():
    """21 pairs, 1 and 7 of them discordant: (2 - 8) / 23, and the error of 2 and 8 in 23."""
    low, high = mcnemar(7, 1, 21)["difference"]["interval"]
    assert (low, high) == pytest.approx((-0.50836, -0.01338), abs=1e-5)


def test_the_interval_of_a_paired_difference_holds_the_truth():
    generator, held, trials = random.Random(2), 0, 1000
    for _ in range(trials):
        outcomes = generator.choices([(1, 1), (1, 0), (0, 1), (0, 0)], [0.5, 0.05, 0.15, 0.3], k=60)
        low, high = paired(once(*zip(*outcomes, strict=True)))["difference"]["interval"]
        held += low <= 0.1 <= high
    assert held >= 0.93 * trials


def test_of_equal_models_mcnemar_finds_one_better_at_most_once_in_twenty():
    generator, found = random.Random(4), 0
    for _ in range(1000):
        outcomes = generator.choices([(1, 1), (1, 0), (0, 1), (0, 0)], [0.4, 0.1, 0.1, 0.4], k=80)
        found += paired(once(*zip(*outcomes, strict=True)))["p"] < 0.05
    assert found <= 50


def test_several_samples_are_a_paired_t_test_of_the_questions_means():
    """As scipy.stats.ttest_rel has it, for means of ten samples."""
    tens = [[[1.0] * k + [0.0] * (10 - k) for k in counts] for counts in ((2, 5, 9, 1, 7, 4), (4, 5, 10, 3, 6, 8))]
    found = paired(pairs(*tens))
    assert found["test"] == "paired t" and found["p"] == pytest.approx(0.12118808449938528)
    assert found["difference"]["interval"] == pytest.approx([-0.05044279399746579, 0.3171094606641325])


def test_one_sample_against_many_is_compared_by_the_questions_means():
    found = paired(pairs([[1.0], [0.0], [1.0]], [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    assert found["test"] == "paired t" and found["difference"]["value"] == pytest.approx(-0.5 / 3)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([], [], None),
        ([[1.0, 0.0]], [[1.0, 1.0]], None),
        ([[0.5]] * 4, [[0.5]] * 4, 1.0),
        ([[0.5]] * 4, [[0.75]] * 4, 0.125),
    ],
)
def test_too_few_questions_and_no_spread(first, second, p):
    found = paired(pairs(first, second))
    assert found["p"] == p
    json.dumps(found, allow_nan=False)


def test_a_mean_over_groups_is_compared_over_groups():
    all_pairs = pairs([[1.0], [0.0], [1.0], [0.0]], [[1.0], [1.0], [1.0], [0.0]], "a")
    all_pairs += pairs([[0.0], [0.0]], [[0.0], [1.0]], "b")
    found = by_metric(all_pairs, "macro:g")
    assert (found["first"], found["second"]) == (0.25, 0.625)
    assert found["difference"]["value"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["difference"]["se"] == pytest.approx((0.25 / 4 + 0.5 / 2) ** 0.5 / 2)
    harmonic = by_metric(all_pairs, "harmonic:g")["difference"]
    assert harmonic["interval"][0] < harmonic["value"] < harmonic["interval"][1]


def test_two_evaluations(two):
    found = compare(*read(*two))
    part = found["benchmarks"]["tiny"]
    assert (part["questions"], part["first"], part["second"]) == (10, 0.5, 0.9)
    assert (part["first_only_right"], part["second_only_right"]) == (0, 4)
    assert part["p"] == 0.125 == part["p_holm"]
    assert compare(*read(two[0], two[0]))["benchmarks"]["tiny"]["p"] == 1.0


def test_only_common_questions_count_and_the_others_are_counted(tmp_path):
    first = write_evaluation(tmp_path / "a", scores([1] * 4) + scores([1], benchmark="gsm8k"))
    second = write_evaluation(tmp_path / "b", scores([0] * 6)[2:])
    found = compare(*read(first, second))
    part = found["benchmarks"]["tiny"]
    assert (part["questions"], part["first_alone"], part["second_alone"]) == (2, 2, 2)
    assert found["first"]["benchmarks_alone"] == ["gsm8k"] and found["second"]["benchmarks_alone"] == []


@pytest.mark.parametrize("change", [{"prompt": "Solved: ... What is 2?"}, {"gold": "6"}, {"options": ["a", "b"]}])
def test_questions_that_were_put_differently_are_refused(tmp_path, change):
    first = write_evaluation(tmp_path / "a", scores([1] * 4))
    second = write_evaluation(tmp_path / "b", [*scores([1] * 3), score(3, 1, **change)])
    with pytest.raises(DataError, match="1 of 4 common questions were put differently"):
        compare(*read(first, second))


def test_nothing_in_common_is_refused(tmp_path, two):
    other = write_evaluation(tmp_path / "c", scores([1], benchmark="gsm8k"))
    with pytest.raises(DataError, match="no benchmark in common"):
        compare(*read(two[0], other))


def test_holm_allows_for_the_number_of_benchmarks(tmp_path):
    names = ("one", "two", "three")
    first = write_evaluation(tmp_path / "a", [row for name in names for row in scores([0] * 6, benchmark=name)])
    second = write_evaluation(tmp_path / "b", [row for name in names for row in scores([1] * 6, benchmark=name)])
    found = compare(*read(first, second))
    assert {part["p"] for part in found["benchmarks"].values()} == {0.03125}
    assert {part["p_holm"] for part in found["benchmarks"].values()} == {0.09375}
    assert found["average"]["value"] == 1.0 and found["average"]["benchmarks"] == 3


def test_the_average_over_benchmarks(tmp_path):
    first = write_evaluation(tmp_path / "a", scores([0, 0, 0, 1, 1, 0]) + scores([0, 1, 0, 0], benchmark="b"))
    second = write_evaluation(tmp_path / "b", scores([1, 1, 0, 1, 0, 1]) + scores([1, 1, 0, 1], benchmark="b"))
    found = compare(*read(first, second))
    errors = [part["difference"]["se"] for part in found["benchmarks"].values()]
    average = found["average"]
    assert average["value"] == pytest.approx((2 / 6 + 2 / 4) / 2)
    assert average["se"] == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)
    assert 0 < average["p"] < 0.2


def test_samples_that_are_not_the_summarys_are_refused(two):
    shutil.copy(two[1] / "samples.parquet", two[0] / "samples.parquet")
    with pytest.raises(CorruptFile, match=r"not what summary\.json was made from"):
        read_evaluation(two[0], "first")


@pytest.mark.parametrize("missing", ["samples.parquet", "summary.json"])
def test_half_an_evaluation_is_refused(two, missing):
    (two[0] / missing).unlink()
    with pytest.raises(StoreError, match=f"has no {missing}"):
        read_evaluation(two[0], "first")


def test_samples_of_another_table_are_refused(two):
    path = two[0] / "samples.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["gold"]), path)
    summary = json.loads((two[0] / "summary.json").read_text())
    summary["samples_sha256"] = describe(path)["sha256"]
    (two[0] / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(CorruptFile, match="no column gold"):
        read_evaluation(two[0], "first")


def test_a_table_that_another_program_wrote_is_read(two):
    """Which has no NaN but null."""
    path = two[0] / "samples.parquet"
    table = pq.read_table(path)
    scores = [None if score else 0 for score in table["score"].to_pylist()]
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", [scores]), path)
    summary = json.loads((two[0] / "summary.json").read_text()) | {"samples_sha256": describe(path)["sha256"]}
    (two[0] / "summary.json").write_text(json.dumps(summary))
    assert compare(*read(*two))["benchmarks"]["tiny"]["undecided"] == 5


def test_the_verb(two, tmp_path, capsys):
    first, second = two
    assert main(["compare", str(first), str(second)]) == 0
    shown = capsys.readouterr().out
    assert "+40.0" in shown and "no clear difference" in shown and "McNemar" in shown
    better = write_evaluation(tmp_path / "third", scores([0] * 3 + [1] * 9), few_shot=5)
    worse = write_evaluation(tmp_path / "fourth", scores([0] * 12))
    assert main(["compare", str(better), str(worse)]) == 0
    shown = capsys.readouterr().out
    assert "A is better" in shown and "not the same: few_shot: 5 and 0" in shown
    assert main(["compare", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"]["tiny"]["p"] == 0.125


def test_an_evaluation_beside_itself_is_said_to_be_the_same(two, capsys):
    assert compare(*read(two[0], two[0]))["same"] and not compare(*read(*two))["same"]
    assert main(["compare", str(two[0]), str(two[0])]) == 0
    assert "A and B are the same evaluation" in capsys.readouterr().out
    assert main(["compare", *map(str, two)]) == 0
    assert "the same evaluation" not in capsys.readouterr().out


def test_equal_answers_of_other_weights_are_not_the_same_evaluation(two):
    path = two[0] / "summary.json"
    (first,), summary = read(two[0]), json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"weight_digest": "def" * 20}))
    assert not compare(first, *read(two[0]))["same"]


def test_the_mean_is_of_the_figures_that_a_report_averages(tmp_path):
    """A benchmark whose figure is a mean over groups counts by it: two groups, of one and of three questions."""
    entries = {"g": entry("macro:g", ["g"])}
    rows = [
        [score(i, right, groups={"g": "small" if i == 0 else "large"}, benchmark="g") for i, right in enumerate(of)]
        for of in ((0, 0, 0, 0), (1, 0, 0, 0))
    ]
    folders = [write_evaluation(tmp_path / n, of, entries=entries) for n, of in zip("ab", rows, strict=True)]
    found = compare(*read(*folders))
    assert found["benchmarks"]["g"]["difference"]["value"] == 0.25
    assert found["benchmarks"]["g"]["metric"]["difference"]["value"] == found["average"]["value"] == 0.5


def test_names_are_shown_not_obeyed(tmp_path, capsys):
    rows = [score(i, i % 2, groups={"g": HOSTILE}, benchmark=f"b{HOSTILE}") for i in range(4)]
    entries = {f"b{HOSTILE}": entry("macro:g", ["g"])}
    folders = [write_evaluation(tmp_path / n, rows, entries=entries, model=HOSTILE) for n in "ab"]
    assert main(["compare", *map(str, folders)]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(shown) and r"\x1b" in shown


def test_without_a_verdict_is_wrong_and_counted(tmp_path, capsys):
    first = write_evaluation(tmp_path / "a", scores([1, NAN, 0, 1]))
    second = write_evaluation(tmp_path / "b", scores([1, 1, 0, 1]))
    assert compare(*read(first, second))["benchmarks"]["tiny"]["undecided"] == 1
    assert main(["compare", str(first), str(second)]) == 0
    assert "1 questions without a verdict" in capsys.readouterr().out


def test_what_is_no_finished_evaluation_is_said(two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "begun")
    assert main(["compare", "begun", str(two[0])]) == 2
    assert "begun is not finished" in capsys.readouterr().err
    assert main(["compare", "begum", str(two[0])]) == 2
    assert "did you mean 'begun'" in capsys.readouterr().err
