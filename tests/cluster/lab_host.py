"""What a SLURM lab needs of its host: programs, ports, namespaces, and a view of the processes."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ["slurm-wlm", "slurmdbd", "munge", "mariadb-server"]
PROGRAMS = ["munged", "munge", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct"]


class LabError(Exception):
    """What is wrong, and what to do."""


def search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin"


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def install() -> None:
    """The packages by apt; a policy-rc.d keeps them from starting daemons of their own meanwhile."""
    if not missing_programs():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(
            f"no {', '.join(missing_programs())} here, and only root can install packages (with apt)\n"
            f"  as root: apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        )
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=env, check=False)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES], env=env, check=False)
    finally:
        if ours:
            policy.unlink()
    if missing_programs():
        raise LabError(f"after installing {' '.join(PACKAGES)} there is still no {', '.join(missing_programs())}")


def choose_net() -> str:
    """Separate hosts where the kernel lets us make them."""
    if os.geteuid() != 0 or shutil.which("ip", path=search_path()) is None:
        return "ports"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], capture_output=True)
    return "netns" if tried.returncode == 0 else "ports"


def free_number() -> int:
    """For a bridge and its subnet: no other lab has it."""
    taken = {path.name for path in Path("/sys/class/net").glob("grhpc*")}
    return next(k for k in range(os.getpid() % 200, 250) if f"grhpc{k}" not in taken)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(17000 + os.getpid() % 500 * 20, 32000, 20):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return first
    raise LabError(f"no {count} free ports in a row between 17000 and 32000")


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    return [pid, *(below for child in children(pid) for below in tree(child))]


def lineage(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def start_ticks(pid: int) -> int:
    """When a process began, in ticks since boot; 0 for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
