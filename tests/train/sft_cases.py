"""Random examples, configurations and small runs for the tests of fine-tuning."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from grhpc.config import ClusterConfig, ModelConfig, RunConfig
from grhpc.config_file import with_absolute_paths
from grhpc.data.tiny import MODELS_DIR, lessons
from grhpc.sft_config import SftConfig, SftDataConfig, SftTrainConfig
from grhpc.store.rundir import RunDir
from grhpc.train.sft_data import Examples, prepare


def make_examples(token_ids: list[list[int]], prompts: list[int]) -> Examples:
    ends = np.cumsum([len(ids) for ids in token_ids], dtype=np.int64)
    tokens = np.asarray([token for ids in token_ids for token in ids], dtype=np.int32)
    return Examples(tokens, ends, np.asarray(prompts, dtype=np.int64))


def random_examples(vocab: int, num: int, seed: int = 0) -> Examples:
    """Of 2 to 28 tokens each."""
    draw = np.random.default_rng(seed)
    prompts = [int(draw.integers(1, 9)) for _ in range(num)]
    return make_examples([draw.integers(0, vocab, p + int(draw.integers(1, 20))).tolist() for p in prompts], prompts)


def make_config(dtype: str = "float32", max_tokens: int = 40, **train: Any) -> SftConfig:
    settings = {"steps": 4, "rows_per_step": 4, "lr": 1e-3, "warmup_steps": 2, "weight_decay": 0.1, **train}
    return SftConfig(
        run=RunConfig(name="test"),
        model=ModelConfig(model="model", dtype=dtype),
        data=SftDataConfig(source="lessons.jsonl", prepared="prepared", max_tokens=max_tokens),
        train=SftTrainConfig(**settings),
    )


def write_lessons(path: Path, num: int, **changed: Any) -> Path:
    """Lessons of the tiny world in the verifier-sft-data shape; `changed` replaces fields of the first."""
    lines: list[dict[str, Any]] = [*lessons(num, seed=7)]
    lines[0].update(changed)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def lesson_config(folder: Path, model: Path, **data: Any) -> SftConfig:
    """A run of six small steps on tiny lessons, in `folder`."""
    settings = {
        "source": str(folder / "lessons.jsonl"),
        "prepared": str(folder / "prepared"),
        "template": str(MODELS_DIR / "verifier" / "template.txt"),
        "max_tokens": 160,
        "heldout_share": 0.1,
    }
    train = {"steps": 6, "rows_per_step": 2, "lr": 1e-3, "checkpoint_every": 2, "heldout_every": 3}
    return SftConfig(
        run=RunConfig(name="sft", dir=str(folder), seed=3),
        model=ModelConfig(model=str(model), dtype="float32"),
        data=SftDataConfig(**{**settings, **data}),
        train=SftTrainConfig(checkpoint_margin_s=0.0, **train),  # type: ignore[arg-type]
        cluster=ClusterConfig(executor="local"),
    )


def make_run(base: Path, root: Path, **data: Any) -> RunDir:
    """A run on the lessons in `base`, which are prepared there once; `base`/model is what it starts from."""
    config = lesson_config(base, base / "model", **data)
    prepare(config)
    return RunDir.create(root, with_absolute_paths(config))
