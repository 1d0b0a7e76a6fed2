"""Where everything of a run stands: the only module that spells its paths.

    config.yaml run.json stop.json finished.json code/ (store/code.py)
    queue/{prompts,rollouts,verdicts}/ (of an evaluation: questions, samples, scores, results)
    weights/  checkpoints/s000100/  batches/s000012-g0003.parquet  archive/  ledger/  decisions/
    events/<role>-<job>.jsonl  logs/  eval/heldout/v000010.parquet  report/  quarantine/  jobs/  rendezvous/
    model/ (what supervised fine-tuning makes; of an evaluation of a run, the weights)
    samples.parquet summary.json (what an evaluation makes)
    eval/online.yaml eval/NAME/v000012/ (evaluations of the run, each a run directory of its own)

Does not know: what roles do. Invariant: a run directory appears whole, by one rename, with a random run id that every
file of the run repeats; files of another run are refused.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from grhpc import config_file
from grhpc.config import AnyConfig, Config, StoreConfig
from grhpc.errors import ConfigError, CorruptFile, StoreError
from grhpc.eval_config import EvalConfig
from grhpc.kinds import KINDS, Settings
from grhpc.records import GroupPrompt, Question, Rollout, Sample, Score, Verdict
from grhpc.store.atomic import list_names, read_json, storing, write_bytes, write_json
from grhpc.store.events import EventLog
from grhpc.store.groups import HELDOUT_PREFIX
from grhpc.store.new_folder import move_in, refuse_used
from grhpc.store.questions import QuestionShard
from grhpc.store.queue import Queue
from grhpc.store.weights import WeightStore

# The queues of each kind of run, in the order in which a shard goes through them.
QUEUES: dict[str, dict[str, type[Any]]] = {
    "grpo": {"prompts": GroupPrompt, "rollouts": Rollout, "verdicts": Verdict},
    "sft": {},
    "eval": {"questions": Question, "samples": Sample, "scores": Score, "results": QuestionShard},
}

_RUN, _CONFIG, _STOP, _FINISHED = "run.json", "config.yaml", "stop.json", "finished.json"
_AWAITING = 3
SAMPLES, SUMMARY = "samples.parquet", "summary.json"  # what an evaluation made, wherever it was copied to
_FOLDERS = (
    *("archive", "batches", "checkpoints", "decisions", "eval/heldout", "events", "jobs", "ledger", "logs"),
    *("quarantine", "rendezvous", "report"),
)


class RunDir:
    """One run's directory. Make it with `create` or `open`."""

    def __init__(self, root: Path, about: dict[str, Any]) -> None:
        self.root, self.about = root, about
        self.run_id: str = about["run_id"]
        self.code_dir, self.ledger_dir, self.checkpoints_dir = root / "code", root / "ledger", root / "checkpoints"
        self.batches_dir, self.archive_dir, self.decisions_dir = root / "batches", root / "archive", root / "decisions"
        self.events_dir, self.logs_dir, self.report_dir = root / "events", root / "logs", root / "report"
        self.jobs_dir, self.rendezvous_dir, self.quarantine_dir = (
            root / "jobs",
            root / "rendezvous",
            root / "quarantine",
        )

    @classmethod
    def create(
        cls, root: Path, config: AnyConfig, fill: Callable[["RunDir"], None] | None = None, **about: Any
    ) -> "RunDir":
        """A new run in `root`, which must not exist or be empty. `about` (its code, models) goes into run.json.

        `fill` puts into it what it has from its beginning. Raises StoreError, and leaves nothing, where something is in
        the way.
        """
        root = Path(root).absolute()
        refuse_used(root, _RUN)
        temp = root.parent / f".{root.name}.{secrets.token_hex(4)}.tmp"
        kind = next(name for name, cls in KINDS.items() if isinstance(config, cls))
        about = {**about, "kind": kind, "run_id": secrets.token_hex(8), "name": root.name}
        about["created"] = round(time.time(), 3)
        try:
            with storing(root):
                root.parent.mkdir(parents=True, exist_ok=True)
                for folder in _FOLDERS:
                    (temp / folder).mkdir(parents=True)
            write_bytes(temp / _CONFIG, config_file.dump(config).encode())
            write_json(temp / _RUN, about)
            new = cls(temp, about)
            new._store = config.store
            for name in QUEUES[kind]:
                new.queue(name)
            if isinstance(config, Config):
                WeightStore(temp / "weights", run_id=new.run_id)
            if fill is not None:
                fill(new)
            move_in(temp, root, _RUN)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        return cls(root, about)

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """An existing run. Raises StoreError where there is none, CorruptFile where run.json is damaged."""
        root = Path(root).absolute()
        if _RUN not in list_names(root):
            raise StoreError(f"no run in {root}", "give the directory that `start` made, or the run's name")
        about = read_json(root / _RUN)
        if not isinstance(about, dict) or not isinstance(about.get("run_id"), str):
            raise CorruptFile(f"{root / _RUN} names no run id", "restore it, or start a new run")
        return cls(root, about)

    def amend(self, config: AnyConfig, **about: Any) -> None:
        """Replace the configuration. `about`, which says so, replaces entries of run.json, and is written first."""
        self.about = {**self.about, **about}
        write_json(self.root / _RUN, self.about)
        write_bytes(self.config_path, config_file.dump(config).encode())

    @property
    def name(self) -> str:
        """What a person calls it on the command line; an evaluation of a run is called RUN/eval/NAME/VERSION."""
        parts = self.root.parts
        return "/".join(parts[-4:]) if self.kind == "eval" and parts[-3:-2] == ("eval",) else self.root.name

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return str(self.about.get("kind", "grpo"))

    def settings(self, overrides: Sequence[str] = ()) -> Settings:
        """The resolved configuration, of whatever kind, as it was when the run was created or last amended."""
        if self.kind not in KINDS:
            raise CorruptFile(f"{self.root / _RUN} says kind {self.kind!r}", f"known kinds: {', '.join(KINDS)}")
        with storing(self.config_path):
            return config_file.load_as(KINDS[self.kind], self.config_path, overrides)

    def config(self) -> Config:
        """The `settings` of a run of GRPO. Raises ConfigError for one of another kind."""
        settings = self.settings()
        if not isinstance(settings, Config):
            made = self.summary_path if isinstance(settings, EvalConfig) else self.model_dir
            raise ConfigError(
                f"{self.name} is a run of {self.kind}: it has no rollouts and no verdicts",
                f"its verbs: status, logs, stop, resume, report; its result: {made}",
            )
        return settings

    def evaluation(self) -> EvalConfig:
        """The `settings` of an evaluation. Raises ConfigError for a run of another kind."""
        settings = self.settings()
        if not isinstance(settings, EvalConfig):
            raise ConfigError(f"{self.name} is a run of {self.kind}, no evaluation", "see: submit.py evaluate --help")
        return settings

    def queue(self, name: str) -> Queue[Any]:
        """One of the kind's QUEUES, with the run's lease and attempts."""
        store = self._store
        return Queue(
            self.root / "queue" / name,
            QUEUES[self.kind][name],
            run_id=self.run_id,
            lease_s=store.lease_s,
            max_attempts=store.max_attempts,
            first=HELDOUT_PREFIX,
        )

    @cached_property
    def weights(self) -> WeightStore:
        return WeightStore(self.root / "weights", run_id=self.run_id)

    def checkpoint_dir(self, step: int) -> Path:
        return self.checkpoints_dir / f"s{step:06d}"

    def batch_path(self, step: int, generation: int) -> Path:
        """The batch of a step. The ledger's generation is in the name: a superseded trainer overwrites nothing."""
        return self.root / "batches" / f"s{step:06d}-g{generation:04d}.parquet"

    def named_batch(self, name: str) -> Path:
        """The batch file that a ledger entry names."""
        return self.root / "batches" / name

    def archive_path(self, first_step: int, last_step: int) -> Path:
        return self.root / "archive" / f"s{first_step:06d}-s{last_step:06d}.zip"

    def heldout_path(self, version: int) -> Path:
        return self.root / "eval" / "heldout" / f"v{version:06d}.parquet"

    def heldout_versions(self) -> list[int]:
        """The versions whose held-out evaluation is complete."""
        names = list_names(self.root / "eval" / "heldout")
        return sorted(int(n[1:-8]) for n in names if n.startswith("v") and n.endswith(".parquet") and n[1:-8].isdigit())

    def evaluation_dir(self, name: str, version: int) -> Path:
        """Where the evaluation `name` of one weight version stands, a run directory of its own."""
        return self.root / "eval" / name / f"v{version:06d}"

    def awaiting_evaluation(self, every: int) -> set[int]:
        """The newest few published versions that an evaluation is due of and that none was made of yet: their weights
        must stay. No more than a few, lest they fill the disk where evaluations cannot be started."""
        due = {version for version in self.weights.versions() if every and version % every == 0}
        return set(sorted(due.difference(version for _, version in self.evaluations()))[-_AWAITING:]) if due else due

    def evaluations(self) -> list[tuple[str, int]]:
        """Name and version of every evaluation of the run, in order."""
        above = self.root / "eval"
        names = [name for name in list_names(above) if name != "heldout" and (above / name).is_dir()]
        found = [(name, v) for name in names for v in list_names(above / name)]
        return sorted((name, int(v[1:])) for name, v in found if v.startswith("v") and v[1:].isdigit())

    def events(self, role: str, job: str, **common: Any) -> EventLog:
        """The event log of one process; one writer each."""
        return EventLog(self.events_dir / f"{role}-{job}.jsonl", role=role, job=job, **common)

    def request_stop(self, reason: str) -> None:
        """Ask every role to finish what it holds and end."""
        write_json(self.root / _STOP, {"reason": reason, "t": round(time.time(), 3)})

    def stop_reason(self) -> str | None:
        """Why a stop was asked for; None if it was not."""
        stop = self._read(_STOP)
        return None if stop is None else str(stop.get("reason", "asked to stop"))

    def clear_stop(self) -> None:
        """Take the request back, before a resume."""
        with contextlib.suppress(FileNotFoundError), storing(self.root / _STOP):
            os.unlink(self.root / _STOP)

    def finish(self, info: dict[str, Any]) -> None:
        """Record that the run reached its end."""
        write_json(self.root / _FINISHED, {**info, "t": round(time.time(), 3)})

    def finished(self) -> dict[str, Any] | None:
        """What `finish` recorded; None while the run has not ended."""
        return self._read(_FINISHED)

    def set_aside(self, path: Path, reason: str) -> Path:
        """Move a bad file or folder into quarantine/, with the reason beside it. Returns where it is now."""
        target = self.quarantine_dir / f"{path.name}.{secrets.token_hex(4)}"
        write_json(target.with_name(target.name + ".json"), {"was": str(path), "reason": reason})
        with storing(target):
            os.rename(path, target)
        return target

    def log_dir(self, role: str) -> Path:
        """What a role's jobs print, and submitit's files about them."""
        return self.logs_dir / role

    @property
    def path(self) -> Path:
        return self.root

    @property
    def config_path(self) -> Path:
        return self.root / _CONFIG

    @property
    def model_dir(self) -> Path:
        """What supervised fine-tuning made, there once it is whole; of an evaluation of a run, that version's weights
        until it is finished. A Hugging Face folder."""
        return self.root / "model"

    @property
    def online_path(self) -> Path:
        """The configuration of the evaluations that a run of GRPO starts by itself."""
        return self.root / "eval" / "online.yaml"

    @property
    def samples_path(self) -> Path:
        """Every sample of a finished evaluation."""
        return self.root / SAMPLES

    @property
    def summary_path(self) -> Path:
        """The figures of a finished evaluation."""
        return self.root / SUMMARY

    @cached_property
    def _store(self) -> StoreConfig:
        return self.settings().store

    def _read(self, name: str) -> dict[str, Any] | None:
        if name not in list_names(self.root):
            return None
        try:
            return dict(read_json(self.root / name))
        except FileNotFoundError:
            return None
