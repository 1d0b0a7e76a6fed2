"""Where vLLM's processes meet: what a killed task leaves on a node is gone with the next one."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from grhpc.engine import sockets

HOLDER = """
import sys
from grhpc.engine.sockets import socket_folder
print(socket_folder(), flush=True)
sys.stdin.read()
"""


def holder() -> tuple[subprocess.Popen, Path]:
    """A process that holds a folder, and the folder, with a socket in it."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = Path(process.stdout.readline().strip())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "01f8932a-a4da-43c3-900c-d468d150bf4f"))
    os.utime(folder, (0, 0))
    return process, folder


def test_a_folder_goes_with_its_process_and_a_killed_ones_with_the_next(short_tmp):
    killed, left = holder()
    lives, held = holder()
    killed.kill()
    killed.wait()
    assert sorted(short_tmp.iterdir()) == sorted([left, held])
    assert left.parent == short_tmp and left.stat().st_mode & 0o077 == 0, "others could listen in"
    ends, _ = holder()
    ends.communicate()
    assert list(short_tmp.iterdir()) == [held], "what lives is left alone, what was killed is not"
    lives.communicate()
    assert list(short_tmp.iterdir()) == []


def test_a_folder_that_may_not_be_locked_yet_is_left_alone(short_tmp):
    young = short_tmp / f"{sockets.PREFIX}young"
    young.mkdir()
    sockets.sweep(short_tmp)
    assert young.is_dir()


def test_where_nothing_can_be_locked_there_is_a_folder_and_none_is_removed(short_tmp, monkeypatch):
    """As on Lustre without `flock`, and on directories over NFS."""

    def refuse(descriptor, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    first = Path(sockets.socket_folder())
    os.utime(first, (0, 0))
    second = Path(sockets.socket_folder())
    assert sorted(short_tmp.iterdir()) == sorted([first, second])


def test_folders_of_other_machines_are_left_alone(short_tmp):
    """Their locks may not be seen from here."""
    other = short_tmp / "grhpc-vllm-00000000-abcdefgh"
    other.mkdir()
    os.utime(other, (0, 0))
    sockets.socket_folder()
    assert other.is_dir()


def test_where_temporary_files_have_a_long_path_sockets_do_not(short_tmp, monkeypatch):
    far = short_tmp / ("x" * 60)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    folder = Path(sockets.socket_folder())
    try:
        assert folder.parent == Path("/tmp")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "01f8932a-a4da-43c3-900c-d468d150bf4f"))
    finally:
        shutil.rmtree(folder)
