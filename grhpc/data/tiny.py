"""The tiny world: generated questions with short verifiable answers, a strict oracle, and the making of its two models.

Eight domains, each with a careful way to the truth and a sloppy one that mostly misses it; reference answers are
written in other forms than the policy's usual one, so that only a judge of meaning recognises a right answer. Rows
have the columns of WebInstruct-verified. `python -m grhpc.data.tiny make` makes tokenizer, policy and verifier again,
`... measure` measures them.

Does not know: the run, rewards. Invariant: a question is in the train or in the held-out split by its hash, in no way
by chance or seed; `oracle` is a pure function of its two texts.
"""

import argparse
import hashlib
import importlib
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from grhpc.data.tiny_domain import Domain
from grhpc.data.tiny_lessons import DOMAINS, Task, lesson_pair, make_task, read_task
from grhpc.errors import DataError, GrhpcError

TRAIN_SPLIT, HELDOUT_SPLITS = "train", ("test", "heldout")
HELDOUT_SHARE = 51 / 256  # of all questions
ROLES = ("policy", "verifier")
MODELS_DIR = Path(__file__).parent / "tiny_models"


def rows(split: str, num: int, seed: int = 0) -> list[dict[str, str]]:
    """`num` rows, the domains in turn: id, question, answer, answer_type, category, difficulty.

    No question comes twice. Raises DataError for an unknown split, or where the world has fewer questions.
    """
    if split not in (TRAIN_SPLIT, *HELDOUT_SPLITS):
        raise DataError(f"the tiny world has no split {split!r}", f"choose {TRAIN_SPLIT} or {HELDOUT_SPLITS[0]}")
    rng = random.Random(f"{split == TRAIN_SPLIT}:{seed}")
    domains, seen = list(DOMAINS), set[str]()
    found: list[dict[str, str]] = []
    while len(found) < num:
        for domain in tuple(domains):
            task = _unseen(rng, domain, split == TRAIN_SPLIT, seen)
            if task is None:
                domains.remove(domain)  # used up: the others fill its place
            elif len(found) < num:
                seen.add(task.question)
                found.append(_row(task, rng))
        if not domains:
            raise DataError(f"the tiny world has only {len(found)} questions", "ask for fewer rows")
    return found


def lessons(num: int, seed: int) -> list[dict[str, str]]:
    """Lessons for a verifier in the shape of verifier-sft-data, of training questions only."""
    rng = random.Random(seed)
    found = []
    for _ in range(num):
        pair = lesson_pair(draw_task(rng, rng.choice(DOMAINS), train=True), rng)
        row = {"question": pair.task.question, "ground_truth": pair.reference, "student_answer": pair.answer}
        found.append({**row, "verification": pair.reason()})
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


def _unseen(rng: random.Random, domain: Domain, train: bool, seen: set[str]) -> Task | None:
    """A new task, or None where the domain seems to be used up."""
    draws = (draw_task(rng, domain, train) for _ in range(100))
    return next((task for task in draws if task.question not in seen), None)


def _row(task: Task, rng: random.Random) -> dict[str, str]:
    domain = task.domain
    return {
        "id": hashlib.sha256(task.question.encode()).hexdigest()[:12],
        "question": task.question,
        "answer": rng.choice(domain.reference_forms(task.facts)),
        "answer_type": domain.answer_type,
        "category": domain.category,
        "difficulty": domain.difficulty,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    roles = (given.only,) if given.only else ROLES
    try:  # torch is loaded only to make and to measure
        if given.verb == "measure":
            measure = importlib.import_module("grhpc.data.tiny_measure")
            print(json.dumps({role: measure.MEASURES[role](given.models / role) for role in roles}, indent=1))
            return 0
        maker = importlib.import_module("grhpc.data.tiny_make")
        with tempfile.TemporaryDirectory(prefix="tiny-make-") as scratch:
            maker.make(given.models, work=given.work or Path(scratch), roles=roles, short=given.short, seed=given.seed)
    except GrhpcError as error:
        print(f"error: {error.problem}\n       {error.remedy}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tiny", description="The tiny world's models.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="make the tokenizer, the policy and the verifier again")
    measure = verbs.add_parser("measure", help="measure both with the oracle, on held-out questions; prints JSON")
    for verb in (make, measure):
        verb.add_argument("--models", type=Path, default=MODELS_DIR, help="folder of policy/ and verifier/")
        verb.add_argument("--only", choices=ROLES, help="one of the two")
    make.add_argument("--short", action="store_true", help="train for a few steps only: a check, not good models")
    make.add_argument("--work", type=Path, help="keep the phases' results here, and go on from those that are there")
    make.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
