"""Real formats, all the way: multi-domain web questions from a file and GSM8K through `load_dataset`, each trained on.

The rows are our own, in the columns and spelling of the originals. Three steps each with the real engines and the tiny
models, which have never seen such text: what is checked is that every row arrives and every group gets its fate.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grhpc.cluster import control
from grhpc.data.prepare import load_prompts
from grhpc.store.ledger import read_ledger
from grhpc.store.rundir import RunDir

ROOT = Path(__file__).parents[1]
END_S = 600

WEB = [
    ("A car is driven 60 km in 45 minutes. What is its mean speed?", "80 km/h", "Float", "Physics"),
    ("What is the derivative of $x^2 + 3x$?", "$2x + 3$", "Expression", "Mathematics"),
    ("Which gas do plants take up for photosynthesis?", "carbon dioxide", "String", "Biology"),
    ("Is the square root of 2 rational?", "No", "Boolean", "Mathematics"),
    ("A shop buys at $40 and sells at $50. What is its markup on cost?", "25\\%", "Percentage", "Business"),
    ("What is the molar mass of water in g/mol, to one decimal?", "18.0", "Float", "Chemistry"),
    ("In which year did the Second World War end?", "1945", "Integer", "History"),
    ("List the prime factors of 30.", "2, 3, 5", "List", "Mathematics"),
]
SUMS = [(f"Ann has {a} apples and buys {b} more. How many has she?", a, b) for a in range(2, 6) for b in range(3, 7)]


def web_file(folder: Path) -> Path:
    """WebInstruct-verified's six columns, one JSON object a line."""
    keys = ("id", "question", "answer", "answer_type", "category", "difficulty")
    rows = [
        dict(zip(keys, (str(4 * copy + i), f"{q} (variant {copy})", a, kind, category, "University"), strict=True))
        for copy in range(3)
        for i, (q, a, kind, category) in enumerate(WEB)
    ]
    path = folder / "web.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gsm8k_folder(folder: Path) -> Path:
    """GSM8K's two columns, in the layout that load_dataset reads from a folder."""
    data = folder / "gsm8k" / "data"
    data.mkdir(parents=True)
    rows = [{"question": q, "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"} for q, a, b in SUMS]
    pq.write_table(pa.Table.from_pylist(rows), data / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:2]), data / "test-00000-of-00001.parquet")
    return folder / "gsm8k"


def submit(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "submit.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=END_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    yield tmp_path
    if (tmp_path / "real" / "run.json").exists():
        control.stop(RunDir.open(tmp_path / "real"), now=True)


@pytest.mark.parametrize(("make_source", "num_train"), [(web_file, 24), (gsm8k_folder, 14)])
def test_prepared_and_trained_for_three_steps(folder: Path, make_source: Any, num_train: int) -> None:
    settings = {
        "run.name": "real",
        "run.dir": folder,
        "data.source": make_source(folder),
        "data.prepared": folder / "prepared",
        "data.max_prompt_tokens": 128,
        "data.instruction": "Put your final answer within \\boxed{}.",
        "evaluate.heldout_every": 0,
        "evaluate.oracle": "''",
        "verify.mode": "rule",
        "rollout.group_size": 2,
        "rollout.groups_per_shard": 4,
        "rollout.engine.max_model_tokens": 192,
        "grpo.groups_per_step": 4,
        "train.steps": 3,
        "train.checkpoint_every": 3,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    submit("prepare", "configs/tiny.yaml", *words)
    prompts = load_prompts(folder / "prepared", "train")
    assert len(prompts) == num_train
    assert all(prompt.answer and "####" not in prompt.answer for prompt in prompts)
    submit("start", "configs/tiny.yaml", "--watch", *words)
    run = RunDir.open(folder / "real")
    state = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert state.finished and state.last_step == 3 and not state.open_groups()
    assert set(state.fates) == set(range(state.next_group))
