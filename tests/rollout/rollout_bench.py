"""A run whose policy is a small random model, prompts for it, and published weights."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from until_empty import UntilEmpty

from grhpc.config import (
    Config,
    DataConfig,
    EngineConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    StoreConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.errors import EngineError
from grhpc.lifetime import Lifetime
from grhpc.records import GroupPrompt
from grhpc.rollout.worker import RolloutWorker
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir
from grhpc.store.serving import serve


@dataclass
class Bench:
    """One run and one rollout task of it."""

    run: RunDir
    life: Lifetime
    worker: RolloutWorker
    models: list[Path]

    def publish(self, version: int, model: int, generation: int = 1) -> None:
        staging = self.run.weights.begin(generation, version)
        for name in ("model.safetensors", "config.json"):
            shutil.copy(self.models[model] / name, staging / name)
        self.run.weights.commit(generation, version, base="policy", extra={})

    def put(self, name: str, *rows: GroupPrompt) -> None:
        self.run.queue("prompts").put(name, rows)

    def serve(self) -> str:
        """Until nothing is left in the queue."""
        events = self.run.events("rollout", "local-1")
        reason = serve(self.run, "prompts", UntilEmpty(self.run, "prompts", self.worker), self.life, events)
        self.run.clear_stop()
        return reason

    def taken(self) -> list:
        """The next shard of rollouts, taken off the queue."""
        lease = self.run.queue("rollouts").claim("reader")
        lease.done()
        return lease.rows

    def told(self, event: str) -> list[dict]:
        return [e for e in read_events(self.run.events_dir) if e["event"] == event]


def make_run(folder: Path, policy: Path) -> RunDir:
    config = Config(
        run=RunConfig(name="r", dir=str(folder), seed=7),
        policy=ModelConfig(str(policy), "float32"),
        verifier=VerifierConfig(str(policy), "float32"),
        data=DataConfig(prepared="prepared", max_prompt_tokens=64),
        rollout=RolloutConfig(
            group_size=3,
            temperature=0.9,
            max_response_tokens=12,
            engine=EngineConfig(kv_cache_mb=64, max_num_seqs=32, enforce_eager=True),
        ),
        train=TrainConfig(steps=1),
        store=StoreConfig(
            poll_min_s=0.01, poll_max_s=0.05, idle_s=60.0, max_attempts=2, local_dir=str(folder / "node")
        ),
    )
    return RunDir.create(folder / "r", config)


class Broken:
    """An engine that loads weights but cannot generate."""

    closed = False

    def add(self, requests):
        self.close()
        raise EngineError("it broke")

    def abort(self):
        pass

    def load_weights(self, folder):
        pass

    def close(self):
        self.closed = True
