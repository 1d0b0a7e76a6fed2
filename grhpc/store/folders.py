"""The three folders of a queue, and the moves of a shard file between them.

Does not know: rows, who may move what. Invariant: every move is one rename or one removal, and a shard that goes to
failed/ has its reason beside it before it arrives.
"""

import contextlib
import os
from pathlib import Path

from grhpc.errors import StoreError
from grhpc.store import names
from grhpc.store.atomic import list_names, make_dir, read_json, remove_quietly, server_mtime, storing, write_json
from grhpc.store.names import ShardFile

READY, LEASED, FAILED = "ready", "leased", "failed"
STATES = (READY, LEASED, FAILED)


class Folders:
    """`directory`/{ready,leased,failed,temp}. `max_attempts`: tries before a shard goes to failed/."""

    def __init__(self, directory: Path, max_attempts: int) -> None:
        self.directory, self.max_attempts = directory, max_attempts
        self.temp, self.clock = directory / "temp", directory / "clock"
        self._reasons: dict[str, str] = {}
        present = set(list_names(directory))
        for part in (*STATES, self.temp.name):
            if part not in present:
                make_dir(directory / part)

    def path(self, state: str, file: ShardFile) -> Path:
        return self.directory / state / file.file

    def files(self, state: str) -> list[ShardFile]:
        """The shards in one folder by one listing, in the order of their names; other files are left alone."""
        parsed = (names.parse(name) for name in list_names(self.directory / state))
        return [file for file in parsed if file is not None]

    def take(self, file: ShardFile, own: ShardFile) -> bool:
        """Move a ready shard to a name of our own in leased/. False: somebody else took it."""
        source, target = self.path(READY, file), self.path(LEASED, own)
        with storing(source):
            try:
                os.utime(source)  # the lease begins now; a reaper must not see the time of the put
            except FileNotFoundError:
                return False
            return self._rename(source, target)

    def give_back(self, own: ShardFile, reason: str, *, next_attempt: bool) -> bool:
        """Move a leased shard back to ready/, or to failed/ when its attempts are spent. False: it was not there."""
        if next_attempt and own.attempt >= self.max_attempts:
            return self.set_aside(own, f"{reason} (attempt {own.attempt} of {self.max_attempts})")
        target = self.path(READY, own.returned(next_attempt=next_attempt))
        with storing(target):
            return self._rename(self.path(LEASED, own), target)

    def set_aside(self, own: ShardFile, reason: str) -> bool:
        """Move a leased shard to failed/, with the reason. False: it was not there."""
        freed = own.freed()
        write_json(self.directory / FAILED / freed.reason_file, {"reason": reason, "holder": own.holder})
        with storing(self.path(FAILED, freed)):
            return self._rename(self.path(LEASED, own), self.path(FAILED, freed))

    def revive(self, failed: ShardFile) -> bool:
        """Move a failed shard to ready/ as a first attempt, without its reason. False: it was not there."""
        target = self.path(READY, ShardFile(failed.name, turn=failed.turn + 1))
        with storing(target):
            moved = self._rename(self.path(FAILED, failed), target)
        remove_quietly(self.directory / FAILED / failed.reason_file)
        return moved

    def remove(self, own: ShardFile) -> bool:
        """Remove a leased shard. False: it was not there."""
        with storing(self.path(LEASED, own)):
            try:
                os.unlink(self.path(LEASED, own))
            except FileNotFoundError:
                return False
            return True

    def silent_s(self, own: ShardFile, now: float) -> float:
        """Seconds by the server's clock since the holder's last sign of life; 0 for a lease that has just ended."""
        path = self.path(LEASED, own)
        with contextlib.suppress(FileNotFoundError), storing(path):
            return now - server_mtime(path)
        return 0.0

    def reason(self, file: ShardFile) -> str:
        """Why a shard is in failed/."""
        if file.file not in self._reasons:
            path = self.directory / FAILED / file.reason_file
            try:
                self._reasons[file.file] = str(read_json(path)["reason"])
            except (OSError, StoreError, KeyError, TypeError) as error:
                return f"no reason can be read ({error})"
        return self._reasons[file.file]

    def _rename(self, source: Path, target: Path) -> bool:
        try:
            os.rename(source, target)
        except OSError as error:
            # A lost reply makes a rename that worked look as if it had not: look for the result.
            if target.name in list_names(target.parent):
                return True
            if isinstance(error, FileNotFoundError):
                return False
            raise
        return True
