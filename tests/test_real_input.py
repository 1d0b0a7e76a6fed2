"""Rows in the true formats of published datasets, through `submit.py prepare` and three real training steps.

The texts are our own. The tiny verifier knows only its own world, so the rule layer judges.
"""

import json
import os
import subprocess
import sys

import pytest

from grhpc.data.prepare import load_prompts
from grhpc.records import TRAIN
from grhpc.store.ledger import read_ledger
from grhpc.store.rundir import RunDir

SUBMIT_S = 600.0

SETTINGS = {
    "data.instruction": "Please reason step by step, and put your final answer within \\boxed{}.",
    "data.max_prompt_tokens": 300,
    "rollout.engine.max_model_tokens": 352,
    "rollout.group_size": 2,
    "rollout.groups_per_shard": 2,
    "grpo.groups_per_step": 4,
    "train.steps": 3,
    "verify.mode": "rule",
    "evaluate.heldout_every": 0,
    "evaluate.oracle": "",
}


def web_file(folder):
    """Multi-domain web questions with short answers: the question is the last user turn, `prompt` holds other text."""
    subjects = ["the gas that plants take in", "the capital of Norway", "the metal in rust", "the longest river"]
    rows = []
    for i in range(24):
        question = f"({i}) In one or two words, name {subjects[i % 4]}."
        turns = [{"role": "system", "content": "Solve the problem."}, {"role": "user", "content": question}]
        rows.append({"id": str(i), "prompt": "Solve the problem.", "messages": json.dumps(turns), "ground_truth": "x"})
    path = folder / "web.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gsm8k_folder(folder):
    """GSM8K's format, for datasets.load_dataset."""
    rows = [
        {
            "question": f"A box holds {i} pens. Ann buys 3 boxes and gives 2 pens away. How many pens has she?",
            "answer": f"She buys 3*{i}=<<3*{i}={3 * i}>>{3 * i} pens.\nShe keeps {3 * i - 2}.\n#### {3 * i - 2}",
        }
        for i in range(1001, 1025)
    ]
    path = folder / "gsm8k"
    path.mkdir()
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.timeout(4 * SUBMIT_S)  # above the sum of its waits
@pytest.mark.parametrize(
    ("make", "answers"), [(web_file, {"x"}), (gsm8k_folder, {str(3 * i - 2) for i in range(1001, 1025)})]
)
def test_true_formats_train_for_three_steps(root, tmp_path, make, answers):
    chosen = {
        **SETTINGS,
        "run.name": "real",
        "run.dir": tmp_path / "runs",
        "data.source": make(tmp_path),
        "data.prepared": tmp_path / "prepared",
    }
    words = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    submit(root, "prepare", "configs/tiny.yaml", *words)
    prompts = load_prompts(tmp_path / "prepared", TRAIN)
    assert len(prompts) == 24 and {p.answer for p in prompts} == answers
    try:
        out = submit(root, "start", "configs/tiny.yaml", "--watch", *words)
    finally:
        subprocess.run([sys.executable, "submit.py", "stop", str(tmp_path / "runs" / "real"), "--now"], cwd=root)
    assert "step    3 of 3" in out
    run = RunDir.open(tmp_path / "runs" / "real")
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert sorted(ledger.steps) == [1, 2, 3] and not ledger.open_groups()
    submit(root, "audit", str(run.root))


def submit(root, *words):
    done = subprocess.run(
        [sys.executable, "submit.py", *words],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SUBMIT_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
