"""The verb `evaluate`: which model, which directory; begin an evaluation there, or go on with the one that is there.

Does not know: how questions are asked or scored, how jobs are submitted. Invariant: as that of `start`: whatever is
refused is refused before anything is made.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from grhpc import preflight, start
from grhpc.cluster import control
from grhpc.config_file import load_as
from grhpc.errors import ConfigError, DataError, StoreError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.create import Model, create, model_of, put_back, settled, version_of
from grhpc.evaluate.measured import refuse_other_weights
from grhpc.report.find import find_run
from grhpc.report.watch import show_result
from grhpc.store.atomic import list_names
from grhpc.store.rundir import RunDir

LARGE_BYTES = 4 << 30  # a model of this size takes seconds to look through
STARTING_S = 60.0  # in which whoever made an evaluation has submitted its tasks


def evaluate(args: argparse.Namespace) -> int:
    """Measure a run's published version, or a model, by a configuration of benchmarks; show the table when done."""
    config = load_as(EvalConfig, args.config, args.overrides)
    if config.sample.endpoint.url:
        config = replace(
            config, sample=replace(config.sample, endpoint=replace(config.sample.endpoint, model=args.model))
        )
    owner = None if config.sample.endpoint.url else _owner(args.model)
    root, model = _place(config, owner, args)
    if start.is_run(root):
        return _again(RunDir.open(root), config, model, args)
    if model is None:
        assert owner is not None
        model = version_of(owner, args.version)
    config = settled(config, root, model.model)
    start.check(config, args.no_launch)
    start.ensure_prepared(config, args.config, args.overrides)
    _say_what_takes_long(model.model)
    return start.launch_new(create(root, config, model), args)


def _owner(words: str) -> RunDir | None:
    """The run of that name or folder; None for a model's folder or Hub id. Raises StoreError for none of these."""
    try:
        return find_run(words)
    except StoreError as error:
        try:
            preflight.model_config(words, "the model")
        except DataError as no_model:
            raise StoreError(
                f"{error.problem}, and {no_model.problem}", f"for a model, {no_model.remedy}; for a run: {error.remedy}"
            ) from None
        return None


def _place(config: EvalConfig, owner: RunDir | None, args: argparse.Namespace) -> tuple[Path, Model | None]:
    """Where the evaluation stands, and the model where it is no version of a run of GRPO."""
    if owner is not None and owner.kind == "eval":
        raise ConfigError(f"{owner.name} is an evaluation itself", f"its state: python submit.py status {owner.name}")
    if owner is not None and owner.kind == "grpo":
        if config.run.name == "heldout":
            raise ConfigError("run.name heldout is that of the run's own held-out answers", "--set run.name=...")
        newest = owner.weights.newest()
        version = args.version if args.version is not None else newest.version if newest else 0
        return owner.evaluation_dir(config.run.name, version), None
    if args.version is not None:
        raise ConfigError("--version is of a run of GRPO", f"{args.model} has none: leave it out")
    if owner is None:
        named = Model(args.model, args.model)
        return config.run_dir, named if config.sample.endpoint.url else model_of(args.model)
    if not owner.model_dir.is_dir():
        raise DataError(f"{owner.name} has not made its model yet", f"python submit.py status {owner.name}")
    return config.run_dir, Model(str(owner.model_dir), owner.name)


def _again(run: RunDir, config: EvalConfig, model: Model | None, args: argparse.Namespace) -> int:
    """Show the result of a finished evaluation, and bring back what an unfinished one lacks."""
    there = run.settings()
    same = there.model.model if model is None and isinstance(there, EvalConfig) else model.model if model else ""
    start.refuse_other_settings(run, settled(config, run.root, same))
    if model is not None and isinstance(there, EvalConfig) and not there.sample.endpoint.url:
        _say_what_takes_long(model.model)
        refuse_other_weights(run, model.model)
    if run.finished():
        print(f"{run.name} is finished; to evaluate again: --set run.name=..., or remove {run.root}", flush=True)
        return show_result(run)
    if args.no_launch:
        return start.by_hand(run)
    if _is_being_started(run):
        print(
            f"{run.name} is being started by another call; if none does: python submit.py resume {run.name}", flush=True
        )
        return start.look(run, args.watch)
    goes_on = bool(control.live_jobs(run)) and not run.stop_reason()
    num = 0 if goes_on else put_back(run)
    if num:
        print(f"{num} shards that failed or were lost are tried again", flush=True)
    jobs = [] if goes_on else control.resume(run)
    said = ", ".join(f"{job.role} job {job.job_id}" for job in jobs) or "is already running"
    print(f"{run.name}: {said}", flush=True)
    return start.look(run, args.watch)


def _is_being_started(run: RunDir) -> bool:
    """Made a moment ago, and nothing submitted yet: submitting here too would ask for twice the tasks."""
    return time.time() - float(run.about["created"]) < STARTING_S and not list_names(run.jobs_dir)


def _say_what_takes_long(model: str) -> None:
    size = sum(path.stat().st_size for path in Path(model).iterdir() if path.is_file()) if Path(model).is_dir() else 0
    if size > LARGE_BYTES:
        print(f"reading parts of the {size / 2**30:.0f} GiB in {model}, to know it again ...", flush=True)
