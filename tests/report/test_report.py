"""The report: truth beside the verifier's word, whole figures, and a model's text that stays text."""

import json
import math

import pytest

from grhpc.report.history import last_steps, seconds_by_role
from grhpc.report.picture import Bars, Curve, as_characters, draw
from grhpc.report.report import as_text, make
from grhpc.report.text import duration, number, one_line, percent, printable
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import archive_batches


def test_reward_accepted_and_true_stand_side_by_side(small):
    result = make(small.run)
    rows = {row["step"]: row for row in result["rows"]}
    assert [rows[s]["reward_mean"] for s in (1, 2)] == [0.25, 0.5]
    assert (rows[0]["heldout_accepted"], rows[0]["heldout_true"]) == (0.3, 0.3)
    assert (rows[2]["heldout_accepted"], rows[2]["heldout_true"]) == (0.7, 0.7)
    assert rows[1]["heldout_true"] is None
    last = result["heldout"]["2"]
    assert (last["precision"], last["recall"]) == (pytest.approx(6 / 7), pytest.approx(6 / 7))


def test_a_fooled_verifier_shows_in_the_last_batch(small):
    """Every sample says the reference, the verifier accepts only every second: precision 1, recall a half."""
    batch = make(small.run)["last_batch"]
    assert (batch["true"], batch["precision"], batch["recall"]) == (1.0, 1.0, 0.5)


def test_the_last_batch_is_judged_from_an_archive_too(small):
    before = make(small.run)["last_batch"]
    steps = read_ledger(small.run.ledger_dir, run_id=small.run.run_id).steps
    archive_batches(small.run, steps.values(), every=2)
    assert make(small.run)["last_batch"] == before is not None
    small.run.archive_path(1, 2).unlink()
    assert make(small.run)["last_batch"] is None, "a report is written all the same"


def test_counts_and_times(small):
    result = make(small.run)
    assert result["decisions"] == {"yes": 8, "no": 6, "no_answer": 2, "no_verdict": 0}  # zero is worth a word
    assert result["groups"] == {"admitted": 12, "trained": 8}
    assert result["seconds"]["train"] == {"wait": 2.0, "train": 4.0, "publish": 1.0}
    assert result["seconds"]["verify"] == {"work": 3.0, "wait": 1.0}
    assert result["tokens"] == 64


def test_files_are_written_and_the_picture_is_one(small):
    result = make(small.run)
    folder = small.run.report_dir
    assert json.loads((folder / "report.json").read_text())["step"] == 2
    assert (folder / "report.txt").read_text().startswith("tiny: step 2 of 3")
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG") and result["picture"].endswith("report.png")


def test_the_text_has_table_picture_and_truth(small):
    text = as_text(make(small.run))
    assert "held-out true" in text and "precision 86 %, recall 86 %" in text
    assert "true 30 % to 70 %" in text and "●" in text and "◆ together" in text
    assert "\x1b" not in text and "\u202e" not in text


def test_a_run_without_a_step_has_a_report(small):
    for path in [*small.run.events_dir.iterdir(), *small.run.heldout_path(0).parent.iterdir()]:
        path.unlink()
    result = make(small.run)
    assert result["step"] == 0 and "nothing to draw yet" in as_text(result)


def test_a_replayed_step_counts_once(small):
    small.emit_step(small.run.events("train", "local-7"), 2, reward=0.9)
    assert {row["step"]: row["reward_mean"] for row in make(small.run)["rows"]}[2] == 0.9


def test_last_steps_are_the_newest():
    events = [{"event": "step", "step": 1, "t": 5, "x": "new"}, {"event": "step", "step": 1, "t": 2, "x": "old"}]
    assert last_steps(events)[1]["x"] == "new"


def test_seconds_ignore_what_was_not_measured():
    events = [
        {"event": "shard", "role": "rollout", "seconds": None},
        {"event": "shard", "role": "rollout", "seconds": 2.0},
    ]
    assert seconds_by_role(events)["rollout"] == {"work": 2.0}


def test_curves_leave_gaps_and_stay_in_their_frame():
    lines = as_characters([Curve("a", {0: 0.0, 5: math.nan, 10: 1.0}), Curve("b", {3: None})], width=20, height=5)
    frame = [line.partition("│")[2] for line in lines if "│" in line]
    assert sum(line.count("●") for line in frame) == 2
    assert frame[0][19] == "●" and frame[-1][0] == "●"
    assert all(len(line) <= 20 for line in frame)


@pytest.mark.parametrize(("steps", "axis"), [([1], "step 1"), ([1, 2], "step 1     2")])
def test_the_axis_names_no_step_that_was_not(steps, axis):
    assert as_characters([Curve("a", dict.fromkeys(steps, 0.5))], width=12, height=5)[-2].strip() == axis


@pytest.mark.parametrize("steps", [[1], [0, 1], [1, 2], [0, 3], range(1, 40), range(0, 500, 7)])
def test_only_whole_steps_are_marked(steps):
    points = dict.fromkeys(steps, 0.5)
    figure = draw([("a", [Curve("a", points)]), ("b", Bars("counts", {"x": points}))], "title")
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        marks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        shown = [label.get_text() for x, label in marks if low <= x <= high]
        assert shown and all(text.isdigit() for text in shown), shown


def test_curves_that_meet_say_so():
    lines = as_characters([Curve("a", {0: 0.5}), Curve("b", {0: 0.5})])
    assert lines[-1].endswith("◆ together") and sum(line.count("◆") for line in lines[:-1]) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢\n\t", "plain é 漢\n\t"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x00", "a\\x0db\\x00"),
        ("\u202eevil\u200b", "\\u202eevil\\u200b"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_printable_spells_out_what_a_terminal_would_obey(text, shown):
    assert printable(text) == shown


def test_small_texts():
    assert [duration(s) for s in (5, 65, 3700, 90000)] == ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
    assert (percent(None), percent(0.256), number(float("nan")), number(0.5, 1)) == ("–", "26 %", "–", "0.5")
    assert one_line("a\nb  c", 4) == "a b…"
