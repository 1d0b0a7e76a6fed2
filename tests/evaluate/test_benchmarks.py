"""Entries: the shipped ones are whole, a thirteenth takes ten lines, and a mistake in one is named."""

import pytest
import yaml
from eval_inputs import PLACES, evaluation

from grhpc.errors import ConfigError
from grhpc.evaluate.benchmarks import load_averages, load_benchmarks

THIRTEENTH = """
capitals:
  source: capitals.jsonl
  fields: {question: q, gold: [a, answer]}
  groups: {continent: continent}
  metric: macro:continent
  scorer: math
"""


def entry(**changes):
    return load_benchmarks(evaluation("math500", entries={"math500": changes}))["math500"]


def test_the_twelve_benchmarks_and_the_tiny_one_are_shipped_and_come_in_the_order_asked_for():
    names = [*reversed(PLACES), "tiny"]
    entries = load_benchmarks(evaluation(*names))
    assert list(entries) == names and len(entries) == 13


def test_decoding_is_the_papers():
    entries = load_benchmarks(evaluation(*PLACES))
    sampled = {name: (e.samples, e.temperature) for name, e in entries.items()}
    assert {name for name, how in sampled.items() if how != (1, 0.0)} == {"aime24", "aime25"}
    assert sampled["aime24"] == sampled["aime25"] == (32, 1.0)


def test_published_figures_are_per_cent_of_the_papers_models():
    entries = load_benchmarks(evaluation(*PLACES))
    assert entries["mmlu-pro"].published["GR-4B"] == 62.8 and entries["bbeh"].published["Qwen2.5-7B"] == 8.0
    maths = load_averages()["maths"]
    assert maths.published["GR-7B"] == 48.5 and set(maths.of) <= set(PLACES) and len(maths.of) == 7


def test_a_thirteenth_takes_fewer_than_ten_lines():
    assert len(THIRTEENTH.strip().splitlines()) <= 10
    new = load_benchmarks(evaluation("capitals", entries=yaml.safe_load(THIRTEENTH)))["capitals"]
    assert new.fields == {"question": ["q"], "gold": ["a", "answer"]} and new.prompt == "maths"


def test_a_setting_of_a_shipped_entry_can_be_changed_and_the_rest_stays():
    changed = entry(samples=4, temperature=0.7, fields={"gold": "expected"}, pass_at=[1, 4])
    assert (changed.samples, changed.fields["gold"]) == (4, ["expected"])
    assert changed.fields["question"] == ["problem", "Question"] and changed.scorer == "math"


def test_data_sources_replace_the_source():
    config = evaluation("gsm8k", sources={"gsm8k": "elsewhere.parquet"})
    assert load_benchmarks(config)["gsm8k"].source == "elsewhere.parquet"


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"scorer": "maths"}, "entries.math500.scorer is 'maths'", "did you mean 'math'?"),
        ({"gold": "box"}, "entries.math500.gold is 'box'", "boxed"),
        ({"metric": "macro:subjects"}, "metric is 'macro:subjects'", "its groups: subject, level"),
        (
            {"metric": "macro:subject", "groups": {"subject": None, "level": None}},
            "metric is 'macro:subject'",
            "its groups: none; `entries.math500.groups` would name some",
        ),
        ({"fields": {"quesiton": "q"}}, "fields names 'quesiton'", "'question'"),
        ({"fields": {"gold": None}}, "entries.math500.fields has no gold", "add `gold: <column>`"),
        ({"sample": 3}, "unknown setting 'entries.math500.sample'", "samples"),
        ({"samples": 8}, "8 samples at temperature 0", "raise entries.math500.temperature"),
        ({"samples": 0}, "samples 0", "at least 1"),
        ({"temperature": float("nan")}, "temperature nan", "at least 0"),
        ({"few_shot": {"num": -1}}, "few_shot.num is -1", "at least 1"),
        ({"few_shot": {"examples": [{"question": "1+1?"}]}}, "few_shot.examples has one that is", "a solution"),
        ({"pass_at": [2]}, "pass_at 2 of 1 samples", "ask for as many"),
        ({"prompt": "math"}, "entries.math500.prompt is 'math'", "did you mean 'maths'?"),
        ({"prompt": "xyz"}, "entries.math500.prompt is 'xyz'", "choose one of: maths, choice, theoremqa, bbeh"),
        ({"prompt": "{quest} x"}, "entries.math500.prompt has {quest}", "there are {question} and {options}"),
        ({"prompt": "{question}{Quest}"}, "has {Quest}", "are to stay as they are: { Quest }"),
        ({"prompt": "\\boxed{} {question}\nA: {answer}"}, "has {answer}", "{question}"),
        ({"prompt": "Think well."}, "entries.math500.prompt has no {question}", "{options}"),
        ({"prompt": "Which?\n{options}"}, "has no {question}", "{options}"),  # and it has no options
        ({"prompt": "{ question }"}, "has no {question}", "{options}"),
        ({"prompt": ""}, "has no {question}", "{options}"),
        ({"temperature": "hot"}, "entries.math500.temperature must be a number", "write a number"),
    ],
)
def test_a_mistake_is_named_with_its_place(changes, problem, remedy):
    with pytest.raises(ConfigError) as refused:
        entry(**changes)
    assert problem in refused.value.problem and remedy in refused.value.remedy


@pytest.mark.parametrize(
    "prompt",
    [
        "{question}\nGive the result in \\boxed{}.",
        "{question} As \\boxed{letter}, \\frac{num}{den}, \\sqrt[no]{of}, \\frac{\\text{ab}}{cd} or x_{ij}^{kl}.",
        '{question} One of {1, 2}, {x}, {}, {"answer": 3}, {answer: 3} or { answer }.',
        "{question}{options}",
        "bbeh",
    ],
)
def test_braces_of_a_prompt_that_mean_nothing_stay(prompt):
    assert entry(prompt=prompt).prompt == prompt


def test_a_prompt_of_options_alone_is_one_where_there_are_options():
    prompt = {"prompt": "Which is grammatical?\n{options}"}
    for name in ("mmlu-pro", "gpqa-diamond"):
        assert load_benchmarks(evaluation(name, entries={name: prompt}))[name].prompt == prompt["prompt"]


@pytest.mark.parametrize("where", ["benchmarks", "data.sources"])
def test_an_unknown_name_is_answered_with_the_nearest(where):
    config = evaluation("math501") if where == "benchmarks" else evaluation("math500", sources={"math50": "x"})
    with pytest.raises(ConfigError, match=f"{where} names 'math50") as refused:
        load_benchmarks(config)
    assert "did you mean 'math500'?" in refused.value.remedy
