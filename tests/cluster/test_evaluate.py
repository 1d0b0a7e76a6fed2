"""Evaluations on a real SLURM with real engines: an array of three, of which one task is killed and one requeued; and
those that a run of training starts by itself, while the partition that they are to run on takes nobody."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from grhpc.config_file import dump, load_as
from grhpc.eval_config import EvalConfig
from grhpc.store.events import read_events
from grhpc.store.rundir import QUEUES, RunDir
from tests.cluster.conftest import until
from tests.cluster.lab import Lab
from tests.cluster.test_journey import END_S, ONE_THREAD, folder, kill, start, status, submit
from tests.evaluate.eval_inputs import SOURCES

__all__ = ["folder"]
pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
POLICY = ROOT / "grhpc" / "data" / "tiny_models" / "policy"


def evaluate(folder: Path, name: str, tasks: int, batching: str) -> RunDir:
    """`submit.py evaluate` of the tiny policy on SLURM: the twelve benchmarks in their true formats, and its own."""
    sources = ", ".join(f"{benchmark}: {place}" for benchmark, place in SOURCES.items())
    chosen = {
        "run.name": name,
        "run.dir": folder,
        "benchmarks": f"[tiny, {', '.join(SOURCES)}]",
        "batching": batching,
        "data.prepared": folder / "prepared",
        "data.sources": f"{{{sources}}}",
        "data.max_prompt_tokens": 900,
        "sample.questions_per_shard": 16,
        "store.lease_s": 15,
        "cluster.executor": "slurm",
        "cluster.evaluate": f"{{tasks: {tasks}, time_min: 30, gpus_per_node: 1, env: {ONE_THREAD}}}",
    }
    words = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    submit("evaluate", str(POLICY), "configs/eval-tiny.yaml", *words)
    return RunDir.open(folder / name)


def shards(run: RunDir, task: str = "") -> list[dict[str, Any]]:
    return [e for e in read_events(run.events_dir, "evaluate") if e["event"] == "shard" and e["job"].endswith(task)]


def wait_for_end(run: RunDir) -> None:
    until(f"the end of {run.root.name}; {submit('status', str(run.root))}", run.finished, END_S)


@pytest.mark.timeout(6 * END_S)
def test_three_tasks_of_which_one_is_killed_and_one_requeued(slurm_cluster: Lab, folder: Path) -> None:
    storm = evaluate(folder, "storm", tasks=3, batching="continuous")
    until("the first shards", lambda: len(shards(storm)) >= 2, END_S)
    job = storm_job(storm)
    kill(storm, "evaluate", task=0)
    slurm_cluster.run("scontrol", "requeue", f"{job}_1")
    seen = status(storm)
    assert seen["kind"] == "eval" and seen["samples"] == total(storm)
    wait_for_end(storm)
    until("the tasks to end", lambda: {j["state"] for j in status(storm)["jobs"]} == {"COMPLETED"}, 120)
    restarted = {j["job_id"] for j in status(storm)["jobs"] if j["restarts"]}  # perhaps after the end
    assert f"{job}_1" in restarted, "it came back"
    calm = evaluate(folder, "calm", tasks=1, batching="alone")
    wait_for_end(calm)
    # Totals are exact, and the bytes those of an undisturbed task that did one shard after the other by itself.
    rows = pq.read_table(storm.samples_path, columns=["benchmark", "index", "sample", "num_samples"]).to_pylist()
    places = [(row["benchmark"], row["index"], row["sample"]) for row in rows]
    assert len(set(places)) == len(places) == total(storm)
    assert {row["benchmark"] for row in rows} == {"tiny", *SOURCES}
    assert storm.samples_path.read_bytes() == calm.samples_path.read_bytes()
    summaries = [json.loads(run.summary_path.read_text()) for run in (storm, calm)]
    assert [summary["config"].pop("batching") for summary in summaries] == ["continuous", "alone"]
    assert summaries[0] == summaries[1]
    *stages, scores, _ = QUEUES["eval"]
    for left in (storm.queue(stage).names() for stage in stages):
        assert not left["ready"] and not left["failed"]
        assert left["leased"] <= storm.queue(scores).names()["ready"], "but of one killed when it had delivered"
    assert "storm is finished" in submit("evaluate", str(POLICY), str(storm.config_path))


def training(folder: Path, partition: str) -> RunDir:
    """A real step on SLURM, whose versions 0 and 1 are evaluated, each by an array of two on `partition`."""
    evaluate = f"{{tasks: 2, time_min: 30, partition: {partition}, gpus_per_node: 1, env: {ONE_THREAD}}}"
    settings = ["run.name=small", f"data.prepared={folder}/questions", "data.limit=24", "sample.questions_per_shard=8"]
    settings += ["cluster.executor=slurm", f"cluster.evaluate={evaluate}", "store.lease_s=15"]
    (folder / "eval.yaml").write_text(dump(load_as(EvalConfig, ROOT / "configs" / "eval-tiny.yaml", settings)))
    one = f"{{tasks: 1, time_min: 30, gpus_per_node: 1, env: {ONE_THREAD}}}"
    chosen = {
        "verify.mode": "rule",
        "grpo.groups_per_step": 4,
        "train.tensor_parallel": 1,
        "train.pipeline_parallel": 1,
        "evaluate.every": 1,
        "evaluate.config": folder / "eval.yaml",
    }
    return start(folder, "trains", 1, **chosen, **{f"cluster.{role}": one for role in ("train", "rollout", "verify")})


@pytest.mark.timeout(4 * END_S)
def test_a_run_of_training_evaluates_its_versions_and_waits_for_none(slurm_cluster: Lab, folder: Path) -> None:
    """The run ends while its evaluations still wait for nodes; what these say in the end is on its curve."""
    slurm_cluster.run("scontrol", "update", "PartitionName=spot", "State=DOWN")
    try:
        run = training(folder, "spot")
        wait_for_end(run)
        roots = [run.evaluation_dir("small", version) for version in (0, 1)]
        until("both to be submitted", lambda: list(status(run)["evaluations"].values()) == ["started"] * 2, END_S)
        evaluations = [RunDir.open(root) for root in roots]

        def states() -> list[str]:
            return [job["state"] for evaluation in evaluations for job in status(evaluation)["jobs"]]

        until("four tasks to wait", lambda: states() == ["PENDING"] * 4, END_S)  # SLURM lists them a moment later
        assert not any(evaluation.finished() for evaluation in evaluations)
    finally:
        slurm_cluster.run("scontrol", "update", "PartitionName=spot", "State=UP")
    for evaluation in evaluations:
        wait_for_end(evaluation)
        assert not list(evaluation.root.glob("weights")), "the linked weights are gone"
    assert set(status(run)["evaluations"].values()) == {"finished"}
    summaries = [json.loads(evaluation.summary_path.read_text()) for evaluation in evaluations]
    assert [s["model"] for s in summaries] == ["trains v0", "trains v1"]
    assert len({s["weight_digest"] for s in summaries}) == 2
    found = json.loads(submit("report", str(run.root), "--json"))["evaluations"]["small"]
    values = {version: figures["tiny"]["value"] for version, figures in found["figures"].items()}
    assert values == {str(v): s["benchmarks"]["tiny"]["value"] for v, s in enumerate(summaries)}
    assert not found["missing"]
    assert "evaluation small, score ± SE:" in submit("report", str(run.root))


def storm_job(run: RunDir) -> str:
    return str(next(job["job_id"].partition("_")[0] for job in status(run)["jobs"]))


def total(run: RunDir) -> int:
    extent = run.about["extent"]
    return sum(num * extent["samples"][name] for name, num in extent["questions"].items())
