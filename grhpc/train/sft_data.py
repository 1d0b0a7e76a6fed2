"""Dataset to examples for fine-tuning: prompt and completion as tokens, filtered, held-out questions apart.

Two shapes of rows: a verifier's lesson (question, ground truth, student answer, verification), rendered with the
judge's own template, so that training and judging see the same bytes; or prompt and completion as they are. Writes
data.prepared/{train,heldout}.safetensors and manifest.json. Also a program: `python -m grhpc.train.sft_data CONFIG`.

Does not know: rows, steps, models' weights. Invariant: the manifest is written last; a folder with one is whole; no
question stands in both splits; every lesson ends in a decision, and no example is longer than data.max_tokens.
"""

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from grhpc.answer.judge import load_template, read_decision, render
from grhpc.data import program, tiny
from grhpc.data.manifest import NAME, as_files, read_manifest, unchanged
from grhpc.data.prepare import digest_of, load_tokenizer, same_question, tokenizer_digest
from grhpc.data.source import TINY, Source, as_source, read_source
from grhpc.errors import CorruptFile, DataError
from grhpc.records import HELDOUT, TRAIN
from grhpc.sft_config import SftConfig
from grhpc.store.atomic import make_dir, read_bytes, write_bytes, write_json

LESSON, PAIR = "verifier's lessons", "prompt and completion"
# Our name -> the columns that may hold it, best first.
SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    LESSON: {
        "question": ("question", "problem"),
        "ground_truth": ("ground_truth", "ground_truth_answer", "reference", "reference_answer", "answer"),
        "student_answer": ("student_answer", "extracted_answer", "predicted_answer", "prediction"),
        "verification": ("verification", "explanation", "verdict", "judgement"),
    },
    PAIR: {"prompt": ("prompt",), "completion": ("completion", "response")},
}
BATCH = 2048
NUM_TINY = 4096


@dataclass(frozen=True)
class Text:
    """An example before it is tokens. `key` is what may stand in one split only."""

    prompt: str
    completion: str
    key: str


class Examples:
    """Many examples as one array of tokens; `lengths` are of what a model reads, one less than of the tokens."""

    def __init__(self, tokens: npt.NDArray[np.int32], ends: npt.NDArray[np.int64], prompts: npt.NDArray[np.int64]):
        self._tokens, self._ends, self.prompt_lengths = tokens, ends, prompts
        self.lengths: npt.NDArray[np.int64] = np.diff(ends, prepend=0) - 1

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> npt.NDArray[np.int64]:
        """Prompt, completion and end of text."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._tokens[self._ends[i] - self.lengths[i] - 1 : self._ends[i]].astype(np.int64)


def prepare(config: SftConfig) -> dict[str, Any]:
    """Write the prepared folder and return its manifest; a folder already prepared with the same settings stays.

    Raises DataError for a missing dataset, column or tokenizer, and where the folder was prepared otherwise.
    """
    before = read_prepared(config)
    if before is not None:
        return before
    data, folder, dropped = config.data, Path(config.data.prepared), Counter[str]()
    template, files = load_template(data.template), as_files((data.source, data.heldout_source))
    if data.source == TINY:
        source = as_source("tiny lessons", [*tiny.lessons(data.limit or NUM_TINY, seed=0)])
    else:
        source = read_source(data.source, data.split, limit=data.limit, num_tiny=0)
    texts = {TRAIN: list(_texts(source, config, template, dropped)), HELDOUT: list[Text]()}
    sources = {TRAIN: [source.name, source.digest]}
    if data.heldout_source:
        other = read_source(data.heldout_source, data.heldout_split, limit=data.limit, num_tiny=0)
        sources[HELDOUT] = [other.name, other.digest]
        texts[HELDOUT] = list(_texts(other, config, template, dropped))
        held = {text.key for text in texts[HELDOUT]}
    else:
        held = {text.key for text in texts[TRAIN] if _draw(text.key) < data.heldout_share}
        texts[HELDOUT] = [text for text in texts[TRAIN] if text.key in held]
    texts[TRAIN] = [text for text in texts[TRAIN] if text.key not in held]
    tokenizer = load_tokenizer(config.model.model, "model.model")
    made = {split: list(_tokens(rows, tokenizer, data.max_tokens, dropped)) for split, rows in texts.items()}
    if not made[TRAIN]:
        said = "; ".join(f"{num} {reason}" for reason, num in dropped.items()) or "all of it is held out"
        raise DataError(f"no example is left of {source.name}: {said}", "mend data.* in the config")
    make_dir(folder)
    manifest = {
        "settings": _settings(config),
        "sources": sources,
        "files": files,
        "rows": len(source.rows),
        "examples": {split: len(rows) for split, rows in made.items()},
        "questions": {split: len({text.key for text in rows}) for split, rows in texts.items()},
        "decisions": dict(Counter(read_decision(text.completion) or "none" for text in texts[TRAIN])),
        "tokens": sum(len(ids) for ids, _ in made[TRAIN]),
        "dropped": {reason: num for reason, num in sorted(dropped.items()) if num},
        "sha256": {split: _write(_file(folder, split), rows) for split, rows in made.items()},
    }
    write_json(folder / NAME, manifest)
    return manifest


def read_prepared(config: SftConfig) -> dict[str, Any] | None:
    """The manifest of the folder that the configuration names, None where there is none. Raises DataError where it
    was prepared with other settings, or of other data than are here now."""
    return unchanged(Path(config.data.prepared), lambda: _settings(config))


def load_examples(prepared_dir: Path, split: str) -> Examples:
    """The examples of "train" or "heldout". Raises DataError where nothing is prepared, CorruptFile for other bytes."""
    manifest = read_manifest(prepared_dir)
    if manifest is None or "examples" not in manifest:
        raise DataError(f"{prepared_dir} holds no prepared examples", "run: python submit.py sft CONFIG")
    path = _file(prepared_dir, split)
    try:
        content = read_bytes(path)
        arrays = load(content)
    except (FileNotFoundError, SafetensorError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}", "remove the folder and prepare it again") from None
    if hashlib.sha256(content).hexdigest() != manifest["sha256"][split]:
        raise CorruptFile(f"{path} is not what was prepared", "remove the folder and prepare it again")
    return Examples(arrays["tokens"], arrays["ends"], arrays["prompts"])


def summary_lines(manifest: dict[str, Any]) -> list[str]:
    """The manifest for people."""
    examples, questions = manifest["examples"], manifest["questions"]
    lines = [f"{split}: {examples[split]} examples of {questions[split]} questions" for split in (TRAIN, HELDOUT)]
    lines.append("decisions: " + ", ".join(f"{num} {word}" for word, num in sorted(manifest["decisions"].items())))
    lines += [f"left out: {num} ({reason})" for reason, num in manifest["dropped"].items()]
    return [*lines, f"{manifest['tokens']} tokens to train on"]


def choose_shape(available: Sequence[str], wanted: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The shape of the rows and our name -> their column, by `wanted` first. Raises DataError naming what lacks."""
    there = f"columns there: {', '.join(available) or 'none'}"
    ours = [name for columns in SHAPES.values() for name in columns]
    for name, column in wanted.items():
        if name not in ours:
            raise DataError(f"data.columns names {name!r}, which is not a column of ours", f"use: {', '.join(ours)}")
        if column not in available:
            raise DataError(f"no column {column!r} (data.columns.{name}) in the dataset", there)
    missing = {}
    for shape, columns in SHAPES.items():
        found = {
            name: next((c for c in (wanted.get(name), *usual) if c in available), None)
            for name, usual in columns.items()
        }
        if all(found.values()):
            return shape, {name: str(column) for name, column in found.items()}
        missing[shape] = [name for name, column in found.items() if column is None]
    shape = min(missing, key=lambda shape: len(missing[shape]) / len(SHAPES[shape]))
    lacking = missing[shape]
    by_itself = "; ".join(f"{name} is {' or '.join(usual)}" for name, usual in SHAPES[shape].items() if name in lacking)
    settings = ", ".join(f"{name}: <column>" for name in lacking)
    raise DataError(
        f"no column of the dataset looks like the {' or the '.join(lacking)} of {shape}",
        f"set data.columns to {{{settings}}}; {there}; known by itself: {by_itself}",
    )


def _texts(source: Source, config: SftConfig, template: str, dropped: Counter[str]) -> Iterable[Text]:
    """The rows' texts; what says nothing, or teaches no decision, is left out and counted."""
    shape, columns = choose_shape(source.columns, config.data.columns)
    for row in source.rows:
        values = {name: row.get(column) for name, column in columns.items()}
        fields = {name: value if isinstance(value, str) else "" for name, value in values.items()}
        if not all(value.strip() for value in fields.values()):
            dropped["an empty field, or no text"] += 1
        elif shape == PAIR:
            yield Text(fields["prompt"], fields["completion"].rstrip(), same_question(fields["prompt"]))
        elif read_decision(fields["verification"]) is None:
            dropped["the verification does not end in a decision"] += 1
        else:
            question = fields["question"].strip()
            prompt = render(template, question, fields["ground_truth"].strip(), fields["student_answer"])
            # A space between, as the published verifier writes: the words are then the tokens that words usually are.
            yield Text(prompt, f" {fields['verification'].strip()}", same_question(question))


def _draw(key: str) -> float:
    """From 0 to 1, the same in any data set. Salted: rows that were split by their question's hash are split anew."""
    return int(digest_of(f"held out? {key}")[:8], 16) / 2**32


def _tokens(texts: list[Text], tokenizer: Any, room: int, dropped: Counter[str]) -> Iterable[tuple[list[int], int]]:
    """(tokens, how many of them are the prompt), tokenised apart, as a judge is asked; the end of text is added."""
    for first in range(0, len(texts), BATCH):
        part = texts[first : first + BATCH]
        prompts = tokenizer([text.prompt for text in part])["input_ids"]
        completions = tokenizer([text.completion for text in part], add_special_tokens=False)["input_ids"]
        for prompt, completion in zip(prompts, completions, strict=True):
            if not prompt or not completion:
                dropped["an empty field, or no text"] += 1
            elif len(prompt) + len(completion) > room:
                dropped[f"longer than {room} tokens"] += 1
            else:
                yield [*prompt, *completion, tokenizer.eos_token_id], len(prompt)


def _write(path: Path, rows: list[tuple[list[int], int]]) -> str:
    ends = np.cumsum([len(ids) for ids, _ in rows], dtype=np.int64)
    tokens = np.fromiter(
        (token for ids, _ in rows for token in ids), dtype=np.int32, count=int(ends[-1]) if rows else 0
    )
    prompts = np.asarray([length for _, length in rows], dtype=np.int64)
    content = save({"tokens": tokens, "ends": ends, "prompts": prompts})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def _file(folder: Path, split: str) -> Path:
    return folder / f"{split}.safetensors"


def _settings(config: SftConfig) -> dict[str, Any]:
    """Everything of the configuration that the examples depend on."""
    data = dataclasses.asdict(config.data)
    del data["prepared"]
    template = {"template": digest_of(load_template(config.data.template))}
    tokenizer = {"tokenizer": tokenizer_digest(config.model.model, "model.model")}
    plain: dict[str, Any] = json.loads(json.dumps(data | template | tokenizer))
    return plain


def _steps(config: SftConfig) -> Iterator[str]:
    yield f"preparing {config.data.source} for {config.model.model} ..."
    yield from summary_lines(prepare(config))
    yield f"in {config.data.prepared}"


def main(argv: Sequence[str] | None = None) -> int:
    return program.run("grhpc.train.sft_data", "Make examples of a dataset.", SftConfig, _steps, argv)


if __name__ == "__main__":
    sys.exit(main())
