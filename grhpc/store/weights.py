"""Published policy weights: one folder a version, whole or not there.

    weights/staging/g0003-v000014/        the trainer's ranks write here, in parallel
    weights/g0003-v000014/manifest.json   written last; then the folder is renamed here in one step
    weights/pins/g0003-v000014.node7-…    a reader is copying this version
    weights/trash/…                       renamed away, about to be removed

`generation` is the ledger's: of two trainers that both believe they publish version 14, the later one wins.

Does not know: tensors, engines. Invariant: a folder with a published name has a manifest with size and SHA-256 of every
other file in it, and `fetch` hands out no byte that it did not check against it.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.errors import CorruptFile, ForeignFile, Pruned, StoreError
from grhpc.store.atomic import (
    fsync_dir,
    list_names,
    make_dir,
    read_json,
    remove_quietly,
    server_mtime,
    server_now,
    storing,
    write_json,
)
from grhpc.store.heartbeat import Heartbeat
from grhpc.store.local_copy import FOLDER_PREFIX, LocalCopies
from grhpc.store.transfer import Manifest, copy_checked, digest_of_files, not_whole, sync_and_describe

MANIFEST = "manifest.json"
_NONE: Manifest = {}
_FOLDER = re.compile(r"g(\d{4,})-v(\d{6,})")
_PIN_S = 900.0  # a pin without a sign of life for this long belongs to a dead reader
_VISIBLE_S = 90.0  # how long a rank's file may take to show on rank 0's machine


@dataclass(frozen=True, order=True)
class WeightRef:
    """One published version. `digest` depends only on the files' names and contents: equal weights, equal digest."""

    generation: int
    version: int
    path: Path
    digest: str


class WeightStore:
    """The `weights` folder of a run. The trainer's rank 0 begins, commits and prunes; anybody reads."""

    def __init__(self, directory: Path, *, run_id: str) -> None:
        self.directory, self.run_id = Path(directory), run_id
        self._refs: dict[str, WeightRef] = {}
        self._copies: dict[Path, LocalCopies] = {}
        self._heartbeat = Heartbeat(_PIN_S / 10)
        present = set(list_names(self.directory))
        for part in ("staging", "pins", "trash"):
            if part not in present:
                make_dir(self.directory / part)

    def begin(self, generation: int, version: int) -> Path:
        """An empty folder for the ranks to write in. A rank on another node must sync what it writes (`sync_file`)."""
        staging = self.directory / "staging" / folder_name(generation, version)
        with storing(staging):
            if staging.name in list_names(staging.parent):
                shutil.rmtree(staging)
            staging.mkdir()
        return staging

    def commit(
        self, generation: int, version: int, *, base: str, extra: dict[str, Any], written: Manifest = _NONE
    ) -> WeightRef:
        """Publish what stands in the staging folder, under a manifest of its files, in one rename.

        `base` names the model that the weights belong to; `extra` goes into the manifest. `written` are the files that
        ranks synced and described (transfer.py) where they wrote them: waits up to 90 s until they show on this
        machine with those sizes. The rest is synced and described here. After a StoreError the version is published
        whole or not at all, and `begin` and `commit` may be repeated.
        """
        name = folder_name(generation, version)
        staging, target = self.directory / "staging" / name, self.directory / name
        own = [file for file in _wait_for(staging, written) if file not in written]
        with ThreadPoolExecutor(max_workers=4) as pool:
            described = pool.map(sync_and_describe, (staging / file for file in own))
            files = {**written, **dict(zip(own, described, strict=True))}
        manifest: dict[str, Any] = {
            "run_id": self.run_id,
            "generation": generation,
            "version": version,
            "base": base,
            "extra": extra,
            "files": {file: files[file] for file in sorted(files)},
        }
        manifest["digest"] = digest_of_files(manifest["files"])
        write_json(staging / MANIFEST, manifest)
        try:
            with storing(target):
                os.rename(staging, target)
        except (FileNotFoundError, StoreError):  # perhaps only the reply was lost
            if name not in list_names(self.directory) or self._ref(name).digest != manifest["digest"]:
                raise
        with storing(target):
            fsync_dir(self.directory)
        return self._ref(name)

    def newest(self) -> WeightRef | None:
        """The published version with the highest (generation, version), by one listing; None before the first."""
        while names := self._published():
            try:
                return self._ref(names[-1])
            except FileNotFoundError:  # pruned since the listing
                time.sleep(0.05)
        return None

    def versions(self) -> list[int]:
        """The versions that are published and kept, oldest first."""
        return sorted({parse_folder(name)[1] for name in self._published()})

    def find(self, version: int) -> WeightRef | None:
        """This very version, of the highest generation that published it; None where it is not, or no longer, there."""
        for name in reversed(self._published()):
            if parse_folder(name)[1] == version:
                with contextlib.suppress(FileNotFoundError):  # pruned since the listing
                    return self._ref(name)
        return None

    def fetch(self, ref: WeightRef, local_dir: Path) -> Path:
        """A verified copy of `ref` on this node, made once per node. The path stays good until the next fetch.

        Raises Pruned when `ref` was removed meanwhile (ask `newest` again), CorruptFile when a file is not what the
        manifest says.
        """
        root = Path(local_dir) / f"{FOLDER_PREFIX}{self.run_id}"
        copies = self._copies.setdefault(root, LocalCopies(root))
        return copies.get(ref.path.name, ref.digest, lambda target: self._copy(ref, target))

    def fetch_newest(self, local_dir: Path) -> tuple[WeightRef, Path] | None:
        """`fetch` of the newest version, trying again when it is pruned on the way; None before there is one."""
        for last in (False, False, True):
            ref = self.newest()
            if ref is None:
                return None
            try:
                return ref, self.fetch(ref, local_dir)
            except Pruned:
                if last:
                    raise
        raise AssertionError("unreachable")

    def leave(self) -> None:
        """This process needs its local copies no more: remove those that no other process of this node holds."""
        for copies in self._copies.values():
            copies.leave()

    def manifest(self, ref: WeightRef) -> dict[str, Any]:
        """The manifest of a published version. Raises FileNotFoundError, CorruptFile, ForeignFile."""
        manifest = read_json(ref.path / MANIFEST)
        try:
            whole = manifest["digest"] == digest_of_files(manifest["files"]) and (
                folder_name(manifest["generation"], manifest["version"]) == ref.path.name
            )
            owner = manifest["run_id"]
        except (KeyError, TypeError, AttributeError):
            whole, owner = False, None
        if not whole:
            raise CorruptFile(f"{ref.path / MANIFEST} is damaged", f"remove {ref.path}: an older version will be used")
        if owner != self.run_id:
            raise ForeignFile(f"{ref.path} belongs to run {owner}, not {self.run_id}", f"remove {ref.path}")
        return dict(manifest)

    def prune(self, keep: int, protect: set[int]) -> list[str]:
        """Remove versions, but not the newest `keep`, nor those in `protect`, nor one a live reader is copying.

        Returns the names removed. A reader that comes between the look and the removal gets Pruned, never wrong bytes.
        """
        published = self._published()
        removed = []
        with storing(self.directory):
            self._sweep(published)
            for name in published[: max(0, len(published) - max(keep, 1))]:
                if parse_folder(name)[1] in protect or name in self._pinned():
                    continue
                trash = self.directory / "trash" / f"{name}.{secrets.token_hex(4)}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.directory / name, trash)
                    if name in self._pinned():  # a reader pinned it just then: give it back
                        os.rename(trash, self.directory / name)
                        continue
                    shutil.rmtree(trash, ignore_errors=True)
                    removed.append(name)
        return removed

    def _published(self) -> list[str]:
        names = [name for name in list_names(self.directory) if _FOLDER.fullmatch(name)]
        return sorted(names, key=parse_folder)

    def _ref(self, name: str) -> WeightRef:
        if name not in self._refs:
            generation, version = parse_folder(name)
            ref = WeightRef(generation, version, self.directory / name, "")
            self._refs[name] = WeightRef(generation, version, ref.path, self.manifest(ref)["digest"])
        return self._refs[name]

    def _copy(self, ref: WeightRef, target: Path) -> None:
        with self._pin(ref.path.name):
            try:
                manifest = self.manifest(ref)
                if manifest["digest"] != ref.digest:
                    raise CorruptFile(f"{ref.path} changed after it was published", "remove it")
                with ThreadPoolExecutor(max_workers=4) as pool:
                    jobs = [
                        pool.submit(copy_checked, ref.path / file, target / file, entry)
                        for file, entry in manifest["files"].items()
                    ]
                    for job in jobs:
                        job.result()
                write_json(target / MANIFEST, manifest)
            except (FileNotFoundError, StoreError) as error:
                if ref.path.name not in list_names(self.directory):
                    raise Pruned(f"{ref.path} was pruned while being read", "fetch the newest version") from error
                if isinstance(error, FileNotFoundError):
                    raise CorruptFile(f"{error.filename} is missing", f"remove {ref.path}, or restore it") from None
                raise

    @contextlib.contextmanager
    def _pin(self, name: str) -> Iterator[None]:
        host = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())
        pin = self.directory / "pins" / f"{name}.{host}-{os.getpid()}-{secrets.token_hex(4)}"
        with storing(pin):
            os.close(os.open(pin, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        self._heartbeat.watch(pin)
        try:
            yield
        finally:
            self._heartbeat.forget(pin)
            remove_quietly(pin)

    def _pinned(self) -> set[str]:
        """The versions that a live reader is copying; pins of dead readers are removed."""
        pins = list_names(self.directory / "pins")
        if not pins:
            return set()
        now, live = server_now(self.directory / "clock"), set()
        for pin in pins:
            path = self.directory / "pins" / pin
            with contextlib.suppress(FileNotFoundError):
                if now - server_mtime(path) <= _PIN_S:
                    live.add(pin.partition(".")[0])
                else:
                    remove_quietly(path)
        return live

    def _sweep(self, published: list[str]) -> None:
        """Remove what dead pruners and dead or superseded publishers left."""
        for name in list_names(self.directory / "trash"):
            shutil.rmtree(self.directory / "trash" / name, ignore_errors=True)
        for name in list_names(self.directory / "staging"):
            if published and _FOLDER.fullmatch(name) and parse_folder(name) <= parse_folder(published[-1]):
                shutil.rmtree(self.directory / "staging" / name, ignore_errors=True)


def folder_name(generation: int, version: int) -> str:
    return f"g{generation:04d}-v{version:06d}"


def parse_folder(name: str) -> tuple[int, int]:
    """(generation, version) of a published folder's name."""
    match = _FOLDER.fullmatch(name)
    if match is None:
        raise ValueError(f"not the name of a published version: {name!r}")
    return int(match[1]), int(match[2])


def _wait_for(staging: Path, written: Manifest) -> list[str]:
    """The files in `staging` once all of `written` are among them, whole."""
    deadline = time.monotonic() + _VISIBLE_S
    while missing := not_whole(staging, written):
        if time.monotonic() > deadline:
            raise StoreError(
                f"{staging} still lacks {', '.join(missing)}, or a part of it, after {_VISIBLE_S:.0f} s",
                "see whether the rank that writes it died, or the filesystem is slow to show it",
            )
        time.sleep(0.2)
    files = list_names(staging)
    if not files:
        raise StoreError(f"{staging} holds no files to publish", "write the weights before the commit")
    return [file for file in files if file != MANIFEST]
