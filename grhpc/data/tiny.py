"""The tiny world: generated questions with short verifiable answers, a strict oracle, and the making of its two models.

Eight domains, each with a careful way to the truth and a sloppy one that mostly misses it; reference answers are
written in other forms than the policy's usual one, so that only a judge of meaning recognises a right answer. Rows
have the columns of WebInstruct-verified. `python -m grhpc.data.tiny make` makes tokenizer, policy and verifier again.

Does not know: the run, rewards. Invariant: a question is in the train or in the held-out split by its hash, in no way
by chance or seed; `oracle` is a pure function of its two texts.
"""

import argparse
import hashlib
import importlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from grhpc.data.tiny_domain import Domain
from grhpc.data.tiny_lessons import DOMAINS, Task, make_task, read_task
from grhpc.errors import DataError, GrhpcError

TRAIN_SPLIT, HELDOUT_SPLITS = "train", ("test", "heldout")
HELDOUT_SHARE = 51 / 256  # of all questions


def rows(split: str, num: int, seed: int = 0) -> list[dict[str, str]]:
    """`num` rows, the domains in turn: id, question, answer, answer_type, category, difficulty.

    No question comes twice. Raises DataError for an unknown split, or where the world has fewer questions.
    """
    if split not in (TRAIN_SPLIT, *HELDOUT_SPLITS):
        raise DataError(f"the tiny world has no split {split!r}", f"choose {TRAIN_SPLIT} or {HELDOUT_SPLITS[0]}")
    rng = random.Random(f"{split == TRAIN_SPLIT}:{seed}")
    seen: set[str] = set()
    found = []
    for index in range(num):
        task = _unseen(rng, DOMAINS[index % len(DOMAINS)], split == TRAIN_SPLIT, seen)
        seen.add(task.question)
        found.append(_row(task, rng))
    return found


def oracle(question: str, answer_text: str) -> bool:
    """Whether the answer is right, by strict reading of both texts; for measuring, never for reward."""
    task = read_task(question)
    return task is not None and task.right(answer_text)


def is_heldout(question: str) -> bool:
    """The split of a question, by its hash."""
    return hashlib.sha256(question.encode()).digest()[0] < HELDOUT_SHARE * 256


def draw_task(rng: random.Random, domain: Domain, train: bool) -> Task:
    """A random task of one split."""
    while True:
        task = make_task(rng, domain)
        if is_heldout(task.question) != train:
            return task


def _unseen(rng: random.Random, first: Domain, train: bool, seen: set[str]) -> Task:
    """A new task of `first`, or of the domains after it once that one is used up."""
    start = DOMAINS.index(first)
    for domain in (*DOMAINS[start:], *DOMAINS[:start]):
        for _ in range(100):
            task = draw_task(rng, domain, train)
            if task.question not in seen:
                return task
    raise DataError("the tiny world has no more questions", "ask for fewer rows")


def _row(task: Task, rng: random.Random) -> dict[str, str]:
    domain = task.domain
    usual, *others = domain.forms(task.facts, task.value)
    return {
        "id": hashlib.sha256(task.question.encode()).hexdigest()[:12],
        "question": task.question,
        "answer": rng.choice(others or [usual]),
        "answer_type": domain.answer_type,
        "category": domain.category,
        "difficulty": domain.difficulty,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tiny", description="The tiny world.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="make the tokenizer, the policy and the verifier again")
    make.add_argument("--out", type=Path, default=Path(__file__).parent / "tiny_models", help="folder to write")
    make.add_argument("--short", action="store_true", help="train for a few steps only: a check, not a good model")
    make.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    maker = importlib.import_module("grhpc.data.tiny_make")  # torch is loaded only to make
    try:
        maker.make(given.out, short=given.short, seed=given.seed)
    except GrhpcError as error:
        print(f"error: {error.problem}\n       {error.remedy}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
