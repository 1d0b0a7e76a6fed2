"""A whole life of an evaluation's task: the measured model's engine, then the judge's in the same process, then the
results."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from eval_bench import configured, make_evaluation

from grhpc.config import EngineConfig, VerifierConfig, VerifyConfig
from grhpc.data import tiny
from grhpc.store.events import read_events

ROOT = Path(__file__).parents[2]
JUDGE = ROOT / "grhpc" / "data" / "tiny_models" / "verifier"


def test_the_model_then_its_judge_in_one_process(tmp_path):
    """The tiny world's verifier judges what its policy says."""
    config = configured(tmp_path, "tiny")
    config = replace(
        config,
        entries={"tiny": {"scorer": "math"}},  # not by the oracle
        data=replace(config.data, limit=32),
        verify=VerifyConfig(mode="hybrid", audit_share=0.0, engine=EngineConfig(kv_cache_mb=64, enforce_eager=True)),
        verifier=VerifierConfig(
            str(JUDGE), "float32", str(JUDGE / "template.txt"), max_new_tokens=40, max_input_tokens=256
        ),
    )
    run = make_evaluation(tmp_path, config)
    words = [sys.executable, "-m", "grhpc.cluster.role", "evaluate", str(run.root)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    events = read_events(run.events_dir)
    assert [e["stage"] for e in events if e["event"] == "ready"] == ["questions", "samples"]
    rows = pq.read_table(run.samples_path).to_pylist()
    assert len(rows) == 32 and "generative" in {row["layer"] for row in rows}
    said = [(row["score"] == 1.0, tiny.oracle(row["question"], row["extracted"] or "")) for row in rows]
    assert sum(ours == truth for ours, truth in said) >= 30, "the small verifier is right nearly always"
    summary = json.loads(run.summary_path.read_text())
    assert summary["config"]["judge"]["model"] == "verifier" and summary["benchmarks"]["tiny"]["samples"] == 32
    graded = [e for e in events if e["event"] == "shard" and e["stage"] == "grade"]
    assert graded[-1]["so_far"]["requests"] >= 1 and all(e["judged"] >= e["asked"] for e in graded)
