"""Evaluations that a run of training starts by itself: of every `evaluate.every`-th version, and of the last one.

`python -m grhpc.evaluate.online RUN_DIR JOB PID` is started by the trainer's first rank, process PID, beside it, and
ends with it. It looks at the run's listing, makes the evaluation of a version that is due (which links its weights, so
that the run may prune them), and has `resume` submit its tasks as their own array. A place that refuses is asked
again, MOST_TRIES in all; then a person may.

Does not know: steps, how jobs are submitted. Invariant: a version's evaluation is made once, because its folder appears
once, and launched by whoever made it; nothing here is waited for by the training.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from grhpc.config import Config
from grhpc.config_file import load_as
from grhpc.errors import ConfigError, GrhpcError, StoreError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.create import create, settled, version_of
from grhpc.store.atomic import list_names
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

ROLE = "online"
LOOK_S = 1.0
MOST_TRIES = 5
FIRST_PAUSE_S = 15.0  # before a second try; twice as long each time
LAUNCH_S = 300.0  # for one submission; an evaluation of this age without a job was left by a process that died


def load(config: Config) -> EvalConfig:
    """The configuration of `evaluate.config`, for the run's policy. Raises ConfigError."""
    found = load_as(EvalConfig, config.evaluate.config)
    if found.sample.endpoint.url:
        what = f"{config.evaluate.config} has an endpoint in sample.endpoint"
        raise ConfigError(f"{what}, and would not measure the run's weights", "leave it out there")
    if found.cluster.executor != config.cluster.executor:
        what = (
            f"cluster.executor is {found.cluster.executor} in {config.evaluate.config}, and {config.cluster.executor}"
        )
        raise ConfigError(f"{what} in the run that starts it", "set both alike")
    return settled(found, config.run_dir / "eval" / found.run.name, config.policy.model)


class Online:
    """The evaluations of one run; `look` starts those that are due."""

    def __init__(self, run: RunDir, job: str) -> None:
        self._run, self._every = run, run.config().evaluate.every
        self._config = load_as(EvalConfig, run.online_path)
        self._events = run.events(ROLE, job)
        past = (e for e in read_events(run.events_dir, ROLE) if e["event"] == "error")
        self._tries = Counter(int(e["version"]) for e in past if "version" in e)
        self._next_try_s: dict[int, float] = {}
        self._settled: set[int] = set()

    def look(self, over: bool) -> bool:
        """Start every version that is due and not started, and say whether none is left to be tried again; `over`: the
        newest is the last, and there is no later."""
        published = self._run.weights.versions()
        due = {version for version in published if version % self._every == 0}
        due |= set(published[-1:] if over else [])
        for version in sorted(due - self._settled):
            if self._tries[version] >= MOST_TRIES:
                self._settled.add(version)
            elif time.monotonic() >= self._next_try_s.get(version, 0.0):
                self._try(version)
        return due <= self._settled

    def _try(self, version: int) -> None:
        try:
            if self._start(version):
                self._settled.add(version)
        except (GrhpcError, OSError, subprocess.TimeoutExpired) as error:
            self._tries[version] += 1
            self._next_try_s[version] = time.monotonic() + FIRST_PAUSE_S * 2 ** (self._tries[version] - 1)
            problem = error.problem if isinstance(error, GrhpcError) else f"{type(error).__name__}: {error}"
            self._events.emit(
                "error",
                problem=f"the evaluation of version {version} was not started: {problem}",
                version=version,
                attempt=self._tries[version],
            )

    def _start(self, version: int) -> bool:
        """Whether this version needs us no more."""
        root = self._run.evaluation_dir(self._config.run.name, version)
        made = False
        if root.name not in list_names(root.parent):
            model = version_of(self._run, version)
            try:
                create(root, settled(self._config, root, model.model), model)
                made = True
            except StoreError:  # perhaps a trainer that was replaced, and lives on, was faster
                if root.name not in list_names(root.parent):
                    raise
        evaluation = RunDir.open(root)
        if evaluation.finished() or any(name.endswith(".json") for name in list_names(evaluation.jobs_dir)):
            return True
        ours = made or version in self._tries or time.time() - float(evaluation.about["created"]) > LAUNCH_S
        if ours:
            _launch(root)
            self._events.emit("evaluation", version=version, path=str(root))
        return ours


def _launch(root: Path) -> None:
    words = [sys.executable, "-m", "grhpc.cli", "resume", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LAUNCH_S)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in said if line.startswith("error: ")), said[-1] if said else "no word why")
        raise StoreError(f"{told.removeprefix('error: ')} (exit {done.returncode})", f"python submit.py resume {root}")


def main(words: list[str]) -> int:
    """`RUN_DIR JOB PARENT`; ends with the process PARENT that started it, or once the run is finished and all is
    started or was tried often enough."""
    run, parent = RunDir.open(Path(words[0])), int(words[2])
    online = Online(run, words[1])
    while True:
        over, alone = bool(run.finished()), os.getppid() != parent
        if alone and not over:
            return 0  # the trainer's next life brings the next of these
        settled = online.look(over)
        if over and (settled or alone):
            return 0
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
