"""Dataset to prompts: questions through the policy's chat template, filtered, without duplicates, held-out apart.

Writes data.prepared/{train,heldout}.parquet (Prompt rows) and manifest.json: counts, what was left out and why, and
digests of the source and the tokenizer. Also a program: `python -m grhpc.data.prepare CONFIG`.
Does not know: runs, curricula, models' weights. Invariant: the manifest is written last; a folder with one is whole, no
question stands in both splits, and no prompt is longer than data.max_prompt_tokens.
"""

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from grhpc.config import Config
from grhpc.data import hub, program
from grhpc.data.columns import Fields, choose_columns, read_fields
from grhpc.data.manifest import NAME, as_files, read_manifest, unchanged
from grhpc.data.source import TINY, Source, has_split, read_source
from grhpc.errors import DataError
from grhpc.records import HELDOUT, TRAIN, Prompt
from grhpc.store.atomic import write_json
from grhpc.store.shard import read_shard, write_shard

STAMP = "prepared"  # prepared prompts belong to no run: the run id of their shards
TOKENIZER_FILES = ("tokenizer", "chat_template", "vocab", "merges", "special_tokens", "added_tokens")
NUM_TINY_TRAIN = 4096
BATCH = 2048


def prepare(config: Config) -> dict[str, Any]:
    """Write the prepared folder and return its manifest; a folder already prepared with the same settings stays.

    Raises DataError for a missing dataset, column, model or chat template, and where the folder was prepared otherwise.
    """
    folder = Path(config.data.prepared)
    before = read_prepared(config)
    if before is not None:
        return before
    files = as_files((config.data.source, config.data.heldout_source))
    train, heldout = _read_splits(config)
    for source in (train, heldout):
        if source is not None:
            choose_columns(source.columns, config.data.columns)
    tokenizer = _chat_tokenizer(config.policy.model)
    dropped: Counter[str] = Counter()
    heldout_fields = _unique(_fields(heldout, config, dropped, "held-out: "), set(), dropped, "held-out: ")
    seen = {same_question(f.question) for f in heldout_fields}
    train_fields = _unique(_fields(train, config, dropped, ""), seen, dropped, "")
    prompts = {
        TRAIN: list(_prompts(train_fields, tokenizer, config, dropped, "")),
        HELDOUT: list(_prompts(heldout_fields, tokenizer, config, dropped, "held-out: ")),
    }
    if not prompts[TRAIN]:
        raise DataError(f"no prompt is left of {train.name}: {_as_text(dropped)}", "mend data.* in the config")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "settings": _settings(config),
        "sources": {TRAIN: [train.name, train.digest], HELDOUT: [heldout.name, heldout.digest] if heldout else None},
        "files": files,
        "rows": {TRAIN: len(train.rows), HELDOUT: len(heldout.rows) if heldout else 0},
        "prompts": {split: len(rows) for split, rows in prompts.items()},
        "dropped": {reason: num for reason, num in sorted(dropped.items()) if num},
        "longest_prompt": max(len(p.token_ids) for p in prompts[TRAIN]),
        "sha256": {
            split: write_shard(folder / f"{split}.parquet", rows, run_id=STAMP)
            for split, rows in prompts.items()
            if rows
        },
    }
    write_json(folder / NAME, manifest)
    return manifest


def read_prepared(config: Config) -> dict[str, Any] | None:
    """The manifest of the folder that the configuration names, None where there is none.

    Raises DataError where the folder was prepared with other settings, or of other data than are here now.
    """
    return unchanged(Path(config.data.prepared), lambda: _settings(config))


def load_prompts(prepared_dir: Path, split: str) -> list[Prompt]:
    """The prompts of "train" or "heldout", in their fixed order. Raises DataError where nothing is prepared."""
    manifest = read_manifest(prepared_dir)
    if manifest is None:
        raise DataError(f"{prepared_dir} holds no prepared data", "run: python submit.py prepare CONFIG")
    if not manifest["prompts"][split]:
        return []
    return read_shard(prepared_dir / f"{split}.parquet", Prompt, run_id=STAMP)


def summary_lines(manifest: dict[str, Any]) -> list[str]:
    """The manifest for people."""
    prompts, rows = manifest["prompts"], manifest["rows"]
    lines = [f"{split}: {prompts[split]} prompts of {rows[split]} rows" for split in (TRAIN, HELDOUT)]
    lines += [f"left out: {num} ({reason})" for reason, num in manifest["dropped"].items()]
    return [*lines, f"longest prompt: {manifest['longest_prompt']} tokens"]


def _read_splits(config: Config) -> tuple[Source, Source | None]:
    data = config.data
    if not data.source:
        raise DataError("data.source is empty", "name a dataset: tiny, a Hub id, a folder or a file")
    wanted = max(config.evaluate.heldout_prompts, 1)
    train_split = TRAIN if data.source == TINY else data.split
    train = read_source(data.source, train_split, limit=data.limit, num_tiny=NUM_TINY_TRAIN)
    if data.source == TINY and not data.heldout_source:
        return train, read_source(TINY, HELDOUT, limit=None, num_tiny=wanted)
    if data.heldout_source or has_split(data.source, data.heldout_split):
        source = data.heldout_source or data.source
        return train, read_source(source, data.heldout_split, limit=data.limit, num_tiny=wanted)
    return train, _carve(train, wanted, config)


def _carve(train: Source, wanted: int, config: Config) -> Source | None:
    """Without a held-out split, a tenth of the rows at most: those whose question has the lowest digest.

    Their questions are taken out of train as every held-out question is.
    """
    num = min(wanted, len(train.rows) // 10)
    if not num or not config.evaluate.heldout_every:
        return None
    columns = choose_columns(train.columns, config.data.columns)
    order = sorted(train.rows, key=lambda row: digest_of(_question_of(row, columns)))
    return Source(f"{train.name} (carved out)", train.columns, order[:num], train.digest)


def _question_of(row: dict[str, Any], columns: dict[str, str]) -> str:
    fields = read_fields(row, columns)
    return same_question(fields.question) if fields else ""


def _fields(source: Source | None, config: Config, dropped: Counter[str], where: str) -> list[Fields]:
    if source is None:
        return []
    columns = choose_columns(source.columns, config.data.columns)
    fields = [read_fields(row, columns) for row in source.rows]
    dropped[f"{where}empty question or answer"] += sum(f is None for f in fields)
    return [f for f in fields if f is not None]


def _unique(fields: list[Fields], seen: set[str], dropped: Counter[str], where: str) -> list[Fields]:
    """The first row of each question; questions in `seen` (the held-out ones) are left out."""
    answers: dict[str, str] = {}
    kept = []
    for row in fields:
        key = same_question(row.question)
        if key in seen:
            dropped[f"{where}question is held out"] += 1
        elif key in answers:
            same = answers[key] == row.answer
            dropped[f"{where}duplicate question" + ("" if same else ", another answer")] += 1
        else:
            answers[key] = row.answer
            kept.append(row)
    return kept


def _prompts(
    fields: list[Fields], tokenizer: Any, config: Config, dropped: Counter[str], where: str
) -> Iterable[Prompt]:
    """Tokenised prompts that are short enough; ids are the dataset's own where those are there and unique."""
    ids = Counter(f.id for f in fields)
    for first in range(0, len(fields), BATCH):
        part = fields[first : first + BATCH]
        texts = [_as_prompt(tokenizer, f"{f.question} {config.data.instruction}".strip()) for f in part]
        for row, token_ids in zip(part, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
            if len(token_ids) > config.data.max_prompt_tokens:
                dropped[f"{where}longer than {config.data.max_prompt_tokens} tokens"] += 1
                continue
            yield Prompt(
                prompt_id=row.id if row.id and ids[row.id] == 1 else digest_of(row.question)[:16],
                question=row.question,
                answer=row.answer,
                answer_type=row.answer_type,
                category=row.category,
                difficulty=row.difficulty,
                token_ids=token_ids,
            )


def _as_prompt(tokenizer: Any, content: str) -> str:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return str(text)


def _chat_tokenizer(model: str) -> Any:
    tokenizer = load_tokenizer(model, "policy.model")
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {model} has no chat template", "use a model with one, or add chat_template.jinja"
        )
    return tokenizer


def load_tokenizer(model: str, where: str) -> Any:
    """The tokenizer of the model that the setting `where` names. Raises DataError."""
    from transformers import AutoTokenizer

    asked = Path(model).is_dir() or hub.answers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0] if asked else hub.reason(error)
        raise DataError(
            f"no tokenizer in {where} {model!r}: {reason}", "give a folder or Hub id that has one"
        ) from None
    if len(tokenizer) < 2 or tokenizer.eos_token_id is None:  # without its files the library makes up an empty one
        raise DataError(
            f"no tokenizer in {where} {model!r}: no words, or no end of text", "give a folder or Hub id that has one"
        )
    return tokenizer


def tokenizer_digest(model: str, where: str) -> str:
    """Of a folder by its files, so that no library is needed to look; of a Hub model by its tokenizer."""
    if not Path(model).is_dir():
        tokenizer = load_tokenizer(model, where)
        return digest_of(tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template))
    digest = hashlib.sha256()
    for path in sorted(Path(model).iterdir()):
        if path.name.startswith(TOKENIZER_FILES):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _settings(config: Config) -> dict[str, Any]:
    """Everything of the configuration that the prepared rows depend on."""
    data = dataclasses.asdict(config.data)
    del data["prepared"]
    settings = data | {
        "tokenizer": tokenizer_digest(config.policy.model, "policy.model"),
        "heldout_prompts": config.evaluate.heldout_prompts,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def same_question(question: str) -> str:
    """What two spellings of one question share."""
    return " ".join(question.split())


def digest_of(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _as_text(dropped: Counter[str]) -> str:
    return "; ".join(f"{num} {reason}" for reason, num in dropped.items() if num) or "nothing was read"


def _steps(config: Config) -> Iterator[str]:
    known = read_manifest(Path(config.data.prepared)) is not None
    yield f"{'already prepared:' if known else 'preparing'} {config.data.source} for {config.policy.model} ..."
    yield from summary_lines(prepare(config))
    yield f"in {config.data.prepared}"


def main(argv: Sequence[str] | None = None) -> int:
    return program.run("grhpc.data.prepare", "Make prompts from a dataset.", Config, _steps, argv)


if __name__ == "__main__":
    sys.exit(main())
