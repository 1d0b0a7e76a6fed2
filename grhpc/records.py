"""The rows that travel: Prompt -> GroupPrompt -> Rollout -> Verdict; in an evaluation Question -> Sample -> Score.

A row is a flat frozen dataclass, so that a shard of rows is a plain table which pandas or DuckDB can open. Each stage's
row repeats the one before it: a shard can be understood alone, and no join across shards is ever needed.

Does not know: files, queues, models. Invariant: fields are int, float, str, bool, a list of one of these, or one of
these `| None`; nothing nested.
"""

from dataclasses import dataclass

TRAIN, HELDOUT = "train", "heldout"
KINDS = (TRAIN, HELDOUT)

YES, NO, NO_ANSWER, NO_VERDICT = "yes", "no", "no_answer", "no_verdict"
DECISIONS = (YES, NO, NO_ANSWER, NO_VERDICT)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prepared question. `token_ids` is the whole policy prompt, chat template applied."""

    prompt_id: str
    question: str
    answer: str
    answer_type: str
    category: str
    difficulty: str
    token_ids: list[int]


@dataclass(frozen=True, kw_only=True)
class GroupPrompt(Prompt):
    """A prompt admitted to the run: the seed of one group.

    `group` numbers the groups of a run from 0 in the order of admission (train), or counts held-out prompts from 0
    within one evaluation (heldout). `kind` is TRAIN or HELDOUT. `admitted_version` is the newest weight version when
    it was admitted; no rollout of it may come from an older one.
    """

    group: int
    kind: str
    epoch: int
    admitted_version: int


@dataclass(frozen=True, kw_only=True)
class Rollout(GroupPrompt):
    """One sampled response of a group.

    `sample` numbers the siblings from 0. `response_ids` includes the end-of-text token where one was sampled.
    `sampler_logprobs` has one natural-log probability per response id, under temperature, top-p and top-k as sampled.
    `finish_reason` is "stop" or "length".
    """

    sample: int
    response_ids: list[int]
    sampler_logprobs: list[float]
    response: str
    finish_reason: str
    weight_version: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Verdict(Rollout):
    """One judged rollout.

    `decision` is YES, NO, NO_ANSWER (extraction failed: the judge was not asked) or NO_VERDICT (the judge was asked
    and gave no decision: the group must be dropped, `reward` is NaN). `layer` names who decided ("extract", "exact",
    "guard", "choice", "rule", "generative"), `reason` is that layer's text as it was. Lengths are in tokens of the
    verifier's tokenizer. `reused` says that the decision was made for an identical pair before, `judged_by` by whom:
    "TASK SHARD". `audit` is what the judge said of a sampled pair that a rule had settled; it changes nothing.
    """

    extracted: str | None
    decision: str
    layer: str
    reason: str
    answer_tokens: int
    reference_tokens: int
    reward: float
    reused: bool
    judged_by: str = ""
    audit: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained(Verdict):
    """A verdict as step `step` was trained on it: one row of that step's recorded batch."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a benchmark.

    `item` is its name within the benchmark, `index` its place there, from 0. `question` is its bare text, for a judge;
    `prompt` the whole user turn, worked examples included, before any chat template. `options` are those of multiple
    choice, as texts, the first being A. `gold` is the right answer (the letter, for multiple choice), `gold_type` what
    the benchmark calls its type. `groups` is a JSON object: the question's categories by their kind, e.g.
    {"category": "law"}. `num_samples` responses are wanted.
    """

    benchmark: str
    item: str
    index: int
    question: str
    prompt: str
    options: list[str]
    gold: str
    gold_type: str
    groups: str
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Sample(Question):
    """One response to a question. `sample` numbers a question's from 0. `num_tokens` counts the response's,
    None where a server did not tell. `finish_reason` is "stop", "length" or a server's own word; where there is no
    response, "prompt_too_long" or "refused", by a server that took other questions. `weight_digest` says whose response
    it is."""

    sample: int
    response: str
    num_tokens: int | None
    finish_reason: str
    seed: int
    weight_digest: str


@dataclass(frozen=True, kw_only=True)
class Score(Sample):
    """One graded response. `extracted` is None where no answer was found: that is wrong, and counted as missing.
    `score` is from 0 to 1, NaN where the judge gave no verdict. `layer` names who decided ("extract", "letter",
    "exact", "choice", "rule", "number", "match", "guard", "generative"), `reason` is that layer's text."""

    extracted: str | None
    score: float
    layer: str
    reason: str
