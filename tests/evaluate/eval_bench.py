"""An evaluation of the tiny policy, or of a scripted model, and tasks of it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from eval_inputs import SOURCES

from grhpc.config import EngineConfig, ModelConfig, RunConfig, StoreConfig, VerifyConfig
from grhpc.errors import EngineError
from grhpc.eval_config import EvalConfig, EvalDataConfig, SampleConfig
from grhpc.evaluate.create import create, model_of, settled
from grhpc.evaluate.prepare import prepare
from grhpc.evaluate.sampling import first_seed
from grhpc.evaluate.worker import EvaluateWorker
from grhpc.lifetime import Lifetime
from grhpc.records import Question, Sample
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir
from grhpc.store.serving import serve

POLICY = Path(__file__).parents[2] / "grhpc" / "data" / "tiny_models" / "policy"
AIME = {"aime24": {"samples": 4, "pass_at": [1, 4]}}


def configured(folder: Path, *benchmarks: str, **sections: object) -> EvalConfig:
    config = EvalConfig(
        run=RunConfig(name="e", dir=str(folder), seed=3),
        benchmarks=list(benchmarks),
        entries=AIME if "aime24" in benchmarks else {},
        model=ModelConfig("", "float32"),
        data=EvalDataConfig(
            prepared=str(folder / "prepared"),
            sources={name: place for name, place in SOURCES.items() if name in benchmarks},
            max_prompt_tokens=300,
            limit=24,
        ),
        sample=SampleConfig(
            max_response_tokens=24,
            questions_per_shard=8,
            engine=EngineConfig(kv_cache_mb=64, max_num_seqs=32, enforce_eager=True),
        ),
        verify=VerifyConfig(mode="rule", audit_share=0.0),
        store=StoreConfig(
            poll_min_s=0.01, poll_max_s=0.05, idle_s=60.0, max_attempts=2, local_dir=str(folder / "node")
        ),
    )
    return replace(config, **sections)


def make_evaluation(folder: Path, config: EvalConfig, name: str = "e", model: Path = POLICY) -> RunDir:
    """The same questions, in a directory of that name."""
    root = folder / name
    found = settled(config, root, str(model))
    prepare(found)
    return create(root, found, model_of(str(model)))


@dataclass
class Scripted:
    """A model that answers at once: `answers(question, k)`; it fails while `broken` is true."""

    seed: int
    answers: Callable[[Question, int], str]
    digest: str = "d"
    running: bool = False
    broken: bool = False
    log: list[str] | None = None

    def start(self) -> None:
        self.running = True
        if self.log is not None:
            self.log.append("policy starts")

    def stream(self, first, further, should_stop):
        """One shard after the other, as long as there are further ones."""
        for number in itertools.count():
            questions = first if number == 0 else further()
            if questions is None or should_stop():
                return
            if self.broken:
                raise EngineError("it broke")
            yield number, [self._row(question, k) for question in questions for k in range(question.num_samples)]

    def _row(self, question, k):
        text = self.answers(question, k)
        return Sample(
            **vars(question),
            sample=k,
            response=text,
            num_tokens=len(text),
            finish_reason="stop",
            seed=first_seed(self.seed, question) + k,
            weight_digest=self.digest,
        )

    def usage(self):
        return {}

    def close(self) -> None:
        if self.running and self.log is not None:
            self.log.append("policy ends")
        self.running = False


class Task:
    """One task of an evaluation."""

    def __init__(self, run: RunDir, job: str = "local-1", sampler: object = None, decider: object = None) -> None:
        self.run, self.life = run, Lifetime(job=job)
        self.events = run.events("evaluate", job)
        self.worker = EvaluateWorker(run, run.evaluation(), self.life, self.events)
        if sampler is not None:
            self.worker.sampler = sampler
        if decider is not None:
            self.worker.decider = decider

    def serve(self) -> str:
        return serve(self.run, lambda: self.worker.stage, self.worker, self.life, self.events)

    def step(self) -> str:
        """Claim one shard and do it; its name, or nothing where there is none."""
        self.worker.prepare()
        lease = self.run.queue(self.worker.stage).claim(self.life.job)
        if lease is None:
            return ""
        self.worker.work(lease)
        return lease.name

    def told(self, event: str) -> list[dict]:
        return [e for e in read_events(self.run.events_dir) if e["event"] == event]


def with_engine(run: RunDir, engine: list, job: str = "local-1") -> Task:
    """A task with the module's engine; its own configuration, entries and digest are the first one's."""
    task = Task(run, job, sampler=engine[0] if engine else None)
    if not engine:
        engine.append(task.worker.sampler)
    return task


def result(run: RunDir) -> tuple[bytes, bytes]:
    return run.samples_path.read_bytes(), run.summary_path.read_bytes()
