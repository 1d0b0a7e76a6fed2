"""A folder for the sockets between vLLM's processes, which vLLM strews over /tmp and which a killed engine leaves.

Does not know: vLLM. Invariant: only a folder whose process is gone is removed. A lock says so and not a process id:
containers that share /tmp count their processes each for itself.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path

# Where a folder for temporary files is shared, a lock may hold on one machine only: each sweeps its own.
PREFIX = f"grhpc-vllm-{zlib.crc32(os.uname().nodename.encode()):08x}-"
_LONGEST = 107 - 1 - 36  # of a folder: a socket's path has 107 bytes at most, and vLLM calls each by a UUID
_YOUNG_S = 60.0  # younger ones may not be locked yet


def socket_folder() -> str:
    """A new folder that is removed when this process ends; those that killed processes left are removed now."""
    above = next(path for path in (tempfile.gettempdir(), "/tmp") if path == "/tmp" or _is_short(path))
    sweep(Path(above))
    made = tempfile.mkdtemp(prefix=PREFIX, dir=above)
    with contextlib.suppress(OSError):  # where nothing can be locked nothing is swept either
        fcntl.flock(os.open(made, os.O_RDONLY), fcntl.LOCK_SH)  # held, and so open, as long as this process lives
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def sweep(above: Path) -> None:
    """Remove the folders in `above` that nobody holds any more."""
    for folder in above.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another person's, or somebody else was faster
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(descriptor).st_mtime > _YOUNG_S:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _is_short(above: str) -> bool:
    return len(os.fsencode(above)) + len(f"/{PREFIX}xxxxxxxx") <= _LONGEST
