"""The verbs `start`, `sft` and `resume`: check, prepare, make the run directory, launch, watch.

Does not know: how jobs are submitted, how a run is shown. Invariant: whatever is refused is refused before anything is
made; a run directory whose launch failed is removed again, once the jobs that were taken back have ended.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grhpc import preflight
from grhpc.cluster import amend, control, launch
from grhpc.cluster.sbatch import ONE_JOB, script
from grhpc.config import Config
from grhpc.config_file import dump, load, load_as, with_absolute_paths
from grhpc.data.manifest import read_manifest
from grhpc.data.prepare import read_prepared
from grhpc.errors import ClusterError, ConfigError, DataError, GrhpcError, StoreError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate import online
from grhpc.evaluate import prepare as questions
from grhpc.evaluate.create import put_back
from grhpc.kinds import Settings, Training
from grhpc.records import TRAIN
from grhpc.report.find import find_run
from grhpc.report.watch import show_result, watch
from grhpc.sft_config import SftConfig
from grhpc.store import code
from grhpc.store.atomic import list_names, write_bytes
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir
from grhpc.train import sft_data
from grhpc.train.packing import num_steps

# Who prepares the data of a kind of run, and what says whether that was done.
PREPARE: dict[type, tuple[str, Callable[[Any], dict[str, Any] | None]]] = {
    Config: ("grhpc.data.prepare", read_prepared),
    SftConfig: ("grhpc.train.sft_data", sft_data.read_prepared),
    EvalConfig: ("grhpc.evaluate.prepare", questions.read_current),
}
TAKE_BACK_S = 30.0
MOST_TOLD = 3  # of the settings that differ


def start(args: argparse.Namespace) -> int:
    """Begin a run of GRPO; on a run that is already going, or done, say so."""
    return _begin(load(args.config, args.overrides), args)


def sft(args: argparse.Namespace) -> int:
    """The same for a run of supervised fine-tuning."""
    return _begin(load_as(SftConfig, args.config, args.overrides), args)


def _begin(config: Training, args: argparse.Namespace) -> int:
    if is_run(config.run_dir):
        run = RunDir.open(config.run_dir)
        refuse_other_settings(run, config)
        return by_hand(run) if args.no_launch and not run.finished() else _again(run, args.watch)
    check(config, args.no_launch)
    ensure_prepared(config, args.config, args.overrides)
    if few := preflight.few_heldout(config):
        print(few, flush=True)
    if isinstance(config, SftConfig):
        config = with_steps(config)
    evaluated = _online(config)
    about: dict[str, Any] = {"prepared": preflight.prepared_digest(config), "models": amend.model_digests(config)}
    absolute, ours = with_absolute_paths(config), code.present()

    def fill(run: RunDir) -> None:
        ours.begin(run)
        _write_online(run, evaluated)

    return launch_new(RunDir.create(config.run_dir, absolute, fill, code=ours.first(), **about), args)


def _online(config: Settings) -> EvalConfig | None:
    """How the run's versions are to be evaluated, checked and its questions prepared; None where they are not."""
    if not isinstance(config, Config) or not config.evaluate.every:
        return None
    found = online.load(config)
    preflight.check(found)
    ensure_prepared(found, config.evaluate.config, ())
    return found


def _online_again(run: RunDir, config: Settings, changes: amend.Changes) -> EvalConfig | None:
    """The same where the changes ask for it. Else its versions are measured as the first ones were, whatever became of
    the file and of the benchmarks' data since."""
    settled = run.online_path.name in list_names(run.online_path.parent)
    return None if settled and not {"evaluate.config", "cluster.executor"} & changes.keys() else _online(config)


def _write_online(run: RunDir, evaluated: EvalConfig | None) -> None:
    if evaluated is not None:
        write_bytes(run.online_path, dump(evaluated).encode())


def check(config: Settings, no_launch: bool) -> None:
    """Refuse, before anything is made, what cannot work here. Raises GrhpcError."""
    preflight.check(config)
    if not no_launch:
        launch.require(config)
    elif config.cluster.executor != "slurm":
        raise ConfigError("--no-launch is for SLURM, and cluster.executor is local", "--set cluster.executor=slurm")


def launch_new(run: RunDir, args: argparse.Namespace) -> int:
    """Submit all roles of a run that was just made, and look; where that fails, the run is taken back, if it can be."""
    if args.no_launch:
        return by_hand(run)
    try:
        jobs = launch.start(run, run.settings())
    except GrhpcError as error:
        if _take_back(run):
            raise
        go_on = f"when `squeue` answers: python submit.py resume {run.root}; or, if it lists none, remove the folder"
        raise ClusterError(f"{error.problem}; {run.root} stays: whether jobs of it live is not known", go_on) from error
    print(f"run {run.name} in {run.root}: " + ", ".join(f"{j.role} job {j.job_id}" for j in jobs), flush=True)
    return look(run, args.watch)


def _take_back(run: RunDir) -> bool:
    """Remove a run whose launch failed: its name is free again. False: a job that lives, or may live, keeps it."""
    with contextlib.suppress(ClusterError):
        if not control.still_there(run, TAKE_BACK_S):
            shutil.rmtree(run.root)
            return True
    return False


def by_hand(run: RunDir, without: Collection[str] = ()) -> int:
    """Write a batch script for each role, and print how to submit them; the trainer last, as `start` does."""
    config = run.settings()
    print(f"run {run.name} in {run.root}; to start its roles:")
    for role in sorted(set(config.roles).difference(without), key=lambda role: (role == "train", role)):
        path = run.jobs_dir / f"{role}.sbatch"
        run.log_dir(role).mkdir(parents=True, exist_ok=True)
        write_bytes(path, script(role, config, run.run_id, str(run.root)).encode())
        print(f"sbatch {shlex.quote(str(path))}")
    print(f"look: python submit.py status {run.root}")
    return 0


def resume(args: argparse.Namespace) -> int:
    """Go on with a run that was stopped or broke: submit what does not run, with changed settings where asked."""
    run = find_run(args.run)
    if run.finished():
        result = str(run.model_dir) if run.kind == "sft" else f"python submit.py report {run.name}"
        print(f"{run.name} is finished; its result: {result}")
        return 0
    ours = code.present()
    if args.overrides and not args.code:
        amend.refuse_other_code(run, ours)
    config, changes = amend.amended(run, args.overrides) if args.overrides else (run.settings(), {})
    begun, prepared = amend.begun(run), preflight.prepared_digest(config)
    if (begun or not changes) and run.about.get("prepared", prepared) != prepared:
        raise DataError(
            f"the rows in {config.data.prepared} are not those this run began with",
            "put the prepared folder back",
        )
    if changes:
        preflight.check(config)
        if not args.no_launch:
            launch.require(config)
    _say_code(run, ours, args.code)
    if changes:
        about = {} if begun else {"prepared": prepared, "models": amend.model_digests(config)}
        _write_online(run, _online_again(run, config, changes))
        amend.amend(run, config, changes, **about)
        print("\n".join(f"{setting}: {old} -> {new}" for setting, (old, new) in changes.items()))
    if args.no_launch:
        there = {job.role for job in control.live_jobs(run)}
        run.clear_stop()
        return by_hand(run, without=there)
    if run.kind == "eval" and (num := put_back(run)):
        print(f"{num} shards that failed or were lost are tried again", flush=True)
    jobs = control.resume(run)
    print(", ".join(f"{j.role} job {j.job_id}" for j in jobs) or "every role is already running", flush=True)
    return look(run, args.watch)


def _say_code(run: RunDir, ours: code.Code, take: bool) -> None:
    """Give the run this code where it is to be taken; else say where the run goes on with another."""
    if take:
        print("\n".join(amend.take_code(run, ours)) or f"{run.name} has this code already, {ours.label}", flush=True)
    elif code.differs(run, ours):
        own = code.label(code.copies(run)[-1])
        print(f"{run.name} goes on with its own code, {own}; this is {ours.label}: --code takes it", flush=True)


def ensure_prepared(config: Settings, path: str, overrides: Sequence[str]) -> None:
    """Prepare the data in a child process where that was not done; the child says what is wrong, and this one ends.

    Prompts that were prepared without a source in the configuration are taken as they are.
    """
    named = isinstance(config, EvalConfig) or bool(config.data.source)
    if not named and read_manifest(Path(config.data.prepared)) is not None:
        return
    module, read = PREPARE[type(config)]
    if named and read(config) is not None:
        return
    if not named:
        raise DataError(
            f"no prepared data in {config.data.prepared}, and data.source is empty", "name a dataset in data.source"
        )
    command = [sys.executable, "-m", module, path]
    for override in overrides:
        command += ["--set", override]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


def with_steps(config: SftConfig) -> SftConfig:
    """The configuration of a run whose data is prepared: with the number of steps that its epochs are."""
    if config.train.steps:
        return config
    lengths = sft_data.load_examples(Path(config.data.prepared), TRAIN).lengths
    train, room = config.train, config.data.max_tokens
    steps = num_steps(lengths, room, config.run.seed, train.rows_per_step, train.epochs)
    return replace(config, train=replace(train, steps=steps))


def is_run(folder: Path) -> bool:
    """Whether this is a run's folder; a folder that holds other things is refused."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and "run.json" not in names:
        raise StoreError(
            f"{folder} is not empty and holds no run", "name another run (--set run.name=...), or remove the folder"
        )
    return bool(names)


def refuse_other_settings(run: RunDir, config: Settings) -> None:
    """Raise ConfigError where the run was begun with other settings than these: they would not be its."""
    name, another = run.name, f"begin another run: {_by_another_name(run)}"
    if not isinstance(config, type(run.settings())):
        raise ConfigError(f"{run.root} is a run of {run.kind}", another)
    changes = amend.deviations(run, config)
    if not changes:
        return
    told = [f"{setting} ({json.dumps(old)} there, {json.dumps(new)} here)" for setting, (old, new) in changes.items()]
    more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
    if amend.may_change(run, changes):
        changed = [f"{setting}={json.dumps(new)}" for setting, (_, new) in changes.items()]
        sets = " ".join(f"--set {shlex.quote(words)}" for words in changed[:MOST_TOLD])
        another += f"; or change this one's, once stopped: python submit.py resume {name} {sets}"
    raise ConfigError(f"{run.root} is a run with other settings: {', '.join([*told[:MOST_TOLD], *more])}", another)


def _again(run: RunDir, stay: bool) -> int:
    name = run.name
    if run.finished():
        again = f"{_by_another_name(run)}, or remove {run.root}"
        print(f"{run.root} is finished. To run again: {again}. Its result:", flush=True)
        return show_result(run)
    try:
        live = control.live_jobs(run)
    except ClusterError as error:
        there = f"{run.root} is there already: {error.problem}"
        raise ClusterError(there, f"{error.remedy}; then resume it") from error
    if any(job.role in ONE_JOB for job in live):
        print(f"{name} is already running in {run.root}", flush=True)
        return look(run, stay)
    if live:
        runs, first = f"{len(live)} tasks of it run without a trainer", f"python submit.py stop {name}, then "
    else:
        runs, first = "none of its jobs runs", ""
    said = [f"its {event['role']} said: {event['problem']}" for event in _errors(run)][-1:]
    raise ConfigError(
        "; ".join([f"{run.root} is in use by a run that is not finished, and {runs}", *said]),
        f"go on with it: {first}python submit.py resume {name} (--set section.key=value changes a setting); "
        f"or remove it, or name another: {_by_another_name(run)}",
    )


def _by_another_name(run: RunDir) -> str:
    """What begins one like it beside it. An evaluation of a run, RUN/eval/NAME/VERSION, was begun as NAME."""
    return f"--set run.name={run.name.split('/')[-2:][0]}-2"


def _errors(run: RunDir) -> list[dict[str, Any]]:
    return [event for event in read_events(run.events_dir) if event["event"] == "error"]


def look(run: RunDir, stay: bool) -> int:
    if stay:
        return watch(run)
    print(f"look: python submit.py status {run.root} --watch")
    return 0
