"""Change settings of a run that exists.

What a step computes, and from what, is settled when the run begins. What it asks of the cluster, how its engines and
its store are sized, when it saves, may change while none of its jobs lives; a model or the prepared data may have
moved, if they are what they were. A run that trained nothing yet may change in everything: its trainer may have refused
what it says.

So may the code that its jobs run: it stays as it was when the run began, until a person says otherwise.

Does not know: what the settings do, how a run is resumed. Invariant: no change is made that run.json does not name,
with who made it and when.
"""

import getpass
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from grhpc.cluster import control
from grhpc.cluster.submissions import record_target
from grhpc.config_file import with_absolute_paths
from grhpc.errors import ClusterError, ConfigError, OtherVersion
from grhpc.eval_config import EvalConfig
from grhpc.kinds import Settings
from grhpc.records import Trained
from grhpc.sft_config import SftConfig
from grhpc.store.atomic import list_names
from grhpc.store.code import Code, copies, differs, label, mend_link, own_command
from grhpc.store.folders import LEASED, READY, STATES
from grhpc.store.ledger import read_ledger
from grhpc.store.model_digest import model_digest
from grhpc.store.rundir import QUEUES, RunDir
from grhpc.store.shard import check_columns

MAY_CHANGE = (
    "cluster.",
    "rollout.engine.",
    "verify.engine.",
    "store.",
    "train.checkpoint_",
    "train.micro_batch_size",  # the same sums in another order
    "train.recompute",
    "train.heldout_every",
    "evaluate.oracle",  # it measures, and never rewards
    "evaluate.every",
    "evaluate.config",
)
# Of an evaluation, whose result is to have the same bytes: where it runs, and how fast.
_SIZES = ("gpu_memory_utilization", "kv_cache_mb", "stall_s")
_PACE = ("api_key_env", "concurrency", "requests_per_min", "timeout_s", "max_retries", "price_in", "price_out")
EVALUATION_MAY_CHANGE = (
    "cluster.",
    "store.",
    *(f"{part}.engine.{size}" for part in ("sample", "verify") for size in _SIZES),
    *(f"{part}.endpoint.{pace}" for part in ("sample", "verifier") for pace in _PACE),
    "sample.endpoint.url",  # every sample says which model stands there
)
MAY_MOVE = ("policy.model", "verifier.model", "model.model", "data.prepared")
Changes = dict[str, list[Any]]


def amended(run: RunDir, overrides: Sequence[str]) -> tuple[Settings, Changes]:
    """The configuration with the overrides, and what differs: setting -> [old, new]. Nothing is written.

    Raises ConfigError for what may not change, ClusterError while a job of the run lives, or may live.
    """
    old, new = (with_absolute_paths(run.settings(changed)) for changed in ((), overrides))
    changes = _differences(_flat(asdict(old)), _flat(asdict(new)))
    for setting in changes:
        if setting.startswith("run."):
            raise ConfigError(f"{setting} is the run's identity", f"begin another run: {_begin(run)}")
        if not _may_change(run, setting, changes[setting]):
            _refuse_unless_moved(run, setting, changes[setting])
    if changes:
        _refuse_live(run, "settings")
    return new, changes


def take_code(run: RunDir, code: Code) -> list[str]:
    """Have the run's jobs run this code from now on; what changed, in a line.

    Raises ClusterError as `amended`, OtherVersion where the run holds rows that this code cannot read.
    """
    entries = copies(run)
    if entries and not differs(run, code):
        mend_link(run)
        return []
    _refuse_live(run, "code")
    _refuse_other_rows(run)
    change = [label(entries[-1]) if entries else "that of the checkout", code.label]
    code.replace(run, changes=_changes(run, {"code": change}))
    return [f"code: {change[0]} -> {change[1]}"]


def _refuse_other_rows(run: RunDir) -> None:
    """Raise OtherVersion unless this code reads every shard that is under way, and the batches of a resume."""
    states = STATES if run.kind == "eval" else (READY, LEASED)  # an evaluation tries again what failed
    try:
        for name in QUEUES[run.kind]:
            run.queue(name).check_columns(*states)
        ledger, present = read_ledger(run.ledger_dir, run_id=run.run_id), set(list_names(run.checkpoints_dir))
        saved = max((step for step in ledger.checkpoints if run.checkpoint_dir(step).name in present), default=0)
        for entry in ledger.steps.values():
            if entry.step > saved and entry.batch:
                check_columns(run.named_batch(entry.batch), Trained)
    except OtherVersion as error:
        raise OtherVersion(
            error.problem, f"go on with its own code: python submit.py resume {run.name}; or begin another run"
        ) from None


def refuse_other_code(run: RunDir, code: Code) -> None:
    """Raise ConfigError where the run's own code is another: it may not know the settings that this one would write."""
    if differs(run, code):
        raise ConfigError(
            f"{run.name} has code of its own, {label(copies(run)[-1])}, and this is {code.label}",
            f"let its own change it: {own_command(run.root)} resume {run.root} --set ...; or give it this: --code",
        )


def _refuse_live(run: RunDir, old: str) -> None:
    live = control.live_jobs(run)
    if live:
        raise ClusterError(
            f"{len(live)} tasks of {run.name} live, and would go on with the old {old}",
            f"stop them first: python submit.py stop {run.name}",
        )


def _changes(run: RunDir, settings: Changes) -> list[dict[str, Any]]:
    """Every change of the run so far, and this one."""
    entry = {"t": round(time.time(), 3), "by": getpass.getuser(), "settings": settings}
    return [*run.about.get("changes", []), entry]


def deviations(run: RunDir, config: Settings) -> Changes:
    """What differs in a configuration that names this run: setting -> [the run's, the configuration's].

    Not what `resume --set` changed since, where the configuration says what it said before; not where the run stands.
    """
    changes = _differences(*(_flat(asdict(with_absolute_paths(c))) for c in (run.settings(), config)))
    before: dict[str, Any] = {}
    for entry in run.about.get("changes", []):
        before = {setting: old for setting, (old, _) in entry["settings"].items()} | before
    if isinstance(config, SftConfig) and not config.train.steps:  # the run's are counted from its data
        before["train.steps"] = 0
    return {
        setting: change
        for setting, change in changes.items()
        if setting not in ("run.dir", "run.name") and not (setting in before and before[setting] == change[1])
    }


def may_change(run: RunDir, changes: Changes) -> bool:
    """Whether `resume --set` takes them all, once no job of the run lives."""
    takes = all(_may_change(run, setting, change) for setting, change in changes.items())
    return takes and not any(setting.startswith("run.") for setting in changes) and not run.finished()


def _may_change(run: RunDir, setting: str, change: list[Any]) -> bool:
    if setting == "sample.endpoint.url" and not all(change):  # a server in an engine's place, or the other way round
        return False
    return not begun(run) or setting.startswith(_changeable(run))


def _changeable(run: RunDir) -> tuple[str, ...]:
    """The settings, or their beginnings, that a run of this kind has and may change."""
    allowed = EVALUATION_MAY_CHANGE if run.kind == "eval" else MAY_CHANGE
    has = [*_flat(asdict(run.settings()))]
    return tuple(start for start in allowed if any(setting.startswith(start) for setting in has))


def _allowed(run: RunDir, setting: str) -> str:
    """What may change, for people: sections, and by name only what is beside this setting."""
    said, parts = [], dict[str, list[str]]()
    for start in _changeable(run):
        section, _, key = start.rpartition(".")
        if start.endswith((".", "_")):
            said.append(f"{start}*")
        else:
            parts.setdefault(section, []).append(key)
    beside = setting.rpartition(".")[0]
    if keys := parts.pop(beside, []):
        said.append(f"{beside}.{{{','.join(keys)}}}")
    return ", ".join(said) + (f", parts of {', '.join(parts)}" if parts else "")


def _begin(run: RunDir) -> str:
    """How another run of this kind is begun."""
    verb = {"eval": "evaluate MODEL CONFIG", "sft": "sft CONFIG"}.get(run.kind, "start CONFIG")
    return f"{verb} --set run.name=..."


def begun(run: RunDir) -> bool:
    """Whether the trainer ever came as far as its first weights; an evaluation has its questions from the beginning."""
    return (
        run.kind == "eval"
        or bool(list_names(run.ledger_dir))
        or run.kind == "grpo"
        and run.weights.newest() is not None
    )


def amend(run: RunDir, config: Settings, changes: Changes, **about: Any) -> None:
    """Make the changes, and write them down; `about` replaces entries of run.json."""
    run.amend(config, **about, changes=_changes(run, changes))
    for role in control.SCALABLE:
        if f"cluster.{role}.tasks" in changes:
            record_target(run.jobs_dir, role, changes[f"cluster.{role}.tasks"][1])


def model_digests(config: Settings) -> dict[str, str]:
    """What `amended` knows the run's models by, once they have moved; an evaluation has them from the beginning."""
    if isinstance(config, SftConfig):
        return {"model.model": model_digest(config.model.model)}
    if isinstance(config, EvalConfig):
        return {}
    return {"policy.model": model_digest(config.policy.model), "verifier.model": model_digest(config.verifier.model)}


def _refuse_unless_moved(run: RunDir, setting: str, values: list[Any]) -> None:
    if setting == "data.prepared":  # `resume` compares its digest anyway
        return
    if setting not in MAY_MOVE:
        raise ConfigError(
            f"{setting} cannot change once a run has begun: it would be another run",
            f"begin one: {_begin(run)}; these may change: {_allowed(run, setting)} and moved models",
        )
    was = run.about.get("models", {}).get(setting) or model_digest(values[0])
    if not was or was != model_digest(values[1]):
        raise ConfigError(
            f"{setting}: {values[1]} is not the model that this run began with",
            "name the folder to which the same files were moved, or begin another run",
        )


def _flat(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested mappings as one: "section.key" -> value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{where}{key}.") if isinstance(value, dict) and value else {f"{where}{key}": value}
    return found


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Changes:
    return {key: [old.get(key), new.get(key)] for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
