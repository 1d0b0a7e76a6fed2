"""One SLURM lab: its daemons, its nodes, its state on disk. lab_cli.py is its command line.

Only the standard library is used. Invariant: a process is only signalled if its pid and its start time are those
written down when it was started, or if its environment bears this lab's mark.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.cluster import lab_conf
from tests.cluster.lab_conf import Plan
from tests.cluster.lab_host import (
    LabError,
    children,
    choose_net,
    free_number,
    free_ports,
    lineage,
    missing_programs,
    search_path,
    start_ticks,
    tree,
)

MAX_PATH = 60  # unix sockets below it must stay under 108 characters


class Lab:
    """One lab; `plan` is its state on disk (lab.json)."""

    def __init__(self, root: Path, num_nodes: int = 4, net: str = "auto") -> None:
        root = root.absolute()
        if len(str(root)) > MAX_PATH:
            raise LabError(f"{root} is longer than {MAX_PATH} characters, too long for unix sockets: choose another")
        self.state = root / "lab.json"
        if self.state.exists():
            self.plan = Plan(**json.loads(self.state.read_text()))
        else:
            k = free_number()
            self.plan = Plan(
                root=str(root),
                net=choose_net() if net == "auto" else net,
                user=getpass.getuser(),
                host=socket.gethostname().split(".")[0],
                num_nodes=num_nodes,
                port=free_ports(3 + num_nodes),
                subnet=f"10.77.{k}",
                bridge=f"grhpc{k}",
            )

    @property
    def env(self) -> dict[str, str]:
        """What a client needs to speak to this cluster, and to no other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_", "SACCT_"))}
        conf = f"{self.plan.root}/etc/slurm.conf"
        return {**kept, "PATH": search_path(), "SLURM_CONF": conf, "GRHPC_LAB": self.plan.root}

    def up(self, say: Callable[[str], None] = print) -> None:
        if self.is_up():
            say("the cluster is up already")
            return
        if missing_programs():
            raise LabError(f"no {', '.join(missing_programs())} here: run `tests/cluster/cluster install` as root")
        self._sweep()
        self._write_files()
        try:
            self._start_munge()
            self._start_database()
            self._start_slurm()
        except BaseException:
            self.down()
            raise
        say(f"{self.plan.num_nodes} nodes ({self.plan.net}), partitions prod and spot; to use it:")
        say(f"  . {self.plan.root}/env.sh")

    def down(self, wipe: bool = True) -> None:
        if not self.state.exists():
            return
        if self.is_up():
            self.run("scancel", "-u", self.plan.user, "--state=PENDING", check=False)
            self.run("scancel", "-u", self.plan.user, check=False)
            with contextlib.suppress(LabError):
                self.wait("jobs to end", lambda: not self.run("squeue", "-h", "-t", "R,CG", check=False), 15)
        for name in reversed(list(self.plan.pids)):
            self._stop(name, signal.SIGTERM)
        self._sweep()
        if self.plan.net == "netns":
            subprocess.run(["ip", "link", "del", self.plan.bridge], capture_output=True, env=self.env, check=False)
        self.state.unlink()
        if wipe:
            shutil.rmtree(self.plan.dir, ignore_errors=True)

    def is_up(self) -> bool:
        return "slurmctld" in self.plan.pids and "UP" in self.run("scontrol", "ping", check=False)

    def crash(self, node: str) -> None:
        """The node loses power: slurmd, its steps and their tasks die at once."""
        pid = self.plan.pids[f"slurmd.{node}"][0]
        victims = list(tree(pid))
        if self.plan.net == "ports":
            for stepd in self._stepds(node):
                victims += tree(stepd)
        for victim in victims[:1] if self.plan.net == "netns" else victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        self._forget(f"slurmd.{node}")

    def start_node(self, node: str) -> None:
        for name in ("spool", "local"):
            (self.plan.dir / name / node).mkdir(parents=True, exist_ok=True)
        if self.plan.net == "ports":
            self._spawn(f"slurmd.{node}", ["slurmd", "-D", "-N", node])
        else:
            self._start_host(node)

    def _start_host(self, node: str) -> None:
        """slurmd in namespaces of its own: network, process ids, host name, mounts."""
        p, number = self.plan, int(node[1:])
        script = (
            'hostname "$1"; mount --bind "$GRHPC_LAB/etc/hosts" /etc/hosts; ip link set lo up\n'
            "for i in $(seq 3000); do ip -4 addr show eth0 2>/dev/null | grep -q inet && break; sleep 0.02; done\n"
            'slurmd -D & pid=$!; trap "kill $pid; wait $pid; exit 0" TERM; wait $pid; exit 1'
        )
        unshare = "unshare --net --uts --mount --pid --fork --kill-child --mount-proc bash -c".split()
        outer = self._popen(f"slurmd.{node}", [*unshare, script, "-", node])
        ours = os.readlink("/proc/self/ns/net")
        first: list[int] = []

        def separate() -> bool:
            first[:] = children(outer)
            return bool(first) and os.readlink(f"/proc/{first[0]}/ns/net") != ours

        self.wait(f"the namespaces of {node}", separate, 60)
        self._remember(f"slurmd.{node}", first[0])
        cable = f"{p.bridge}n{number}"
        inside = ["nsenter", "-t", str(first[0]), "-n", "ip"]
        self.run("ip", "link", "del", cable, check=False)  # a crashed node's cable goes a little after the node
        for words in (
            ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(first[0])],
            ["ip", "link", "set", cable, "master", p.bridge, "up"],
            [*inside, "addr", "add", f"{p.subnet}.{number}/24", "dev", "eth0"],
            [*inside, "link", "set", "eth0", "up"],
            [*inside, "route", "add", "default", "via", p.controller],
        ):
            self.run(*words)

    def _write_files(self) -> None:
        p = self.plan
        for name in ("etc", "log", "pid", "state", "spool", "dev", "local"):
            (p.dir / name).mkdir(parents=True, exist_ok=True)
        p.dir.chmod(0o755)
        with contextlib.suppress(PermissionError):
            for i in range(p.gpus):
                device = p.dir / "dev" / f"nvidia{i}"
                if not device.exists():
                    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
            p.gpu_files = str(p.dir / "dev" / "nvidia")
        etc = p.dir / "etc"
        for name, text in lab_conf.FILES.items():
            (etc / name).touch(mode=0o600 if name == "slurmdbd.conf" else 0o755)
            (etc / name).write_text(text(p))
        (p.dir / "env.sh").write_text(f"export SLURM_CONF={etc}/slurm.conf GRHPC_LAB={p.root} PATH=$PATH:/usr/sbin\n")
        self._save()

    def _start_munge(self) -> None:
        p, key = self.plan, self.plan.dir / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(1024))
        where = [f"--key-file={key}", f"--socket={p.root}/munge.socket", f"--pid-file={p.root}/pid/munged.pid"]
        where += [f"--log-file={p.root}/log/munged.log", f"--seed-file={p.root}/munge.seed"]
        self._spawn("munged", ["munged", "--foreground", "--force", *where])
        self.wait("munge", lambda: bool(self.run("munge", "-S", f"{p.root}/munge.socket", "-n", check=False)), 60)

    def _start_database(self) -> None:
        p, sock = self.plan, f"--socket={self.plan.root}/mysql.sock"
        if not (p.dir / "mysql/mysql").is_dir():
            words = "mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db".split()
            self.run(*words, "--skip-name-resolve", f"--user={p.user}", f"--datadir={p.root}/mysql")
        memory = "--innodb-buffer-pool-size=64M --innodb-log-file-size=32M --innodb-lock-wait-timeout=900".split()
        hasty = "--innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --max-allowed-packet=16M".split()
        where = [f"--user={p.user}", f"--datadir={p.root}/mysql", sock, f"--pid-file={p.root}/pid/mariadbd.pid"]
        net = ["--bind-address=127.0.0.1", f"--port={p.port + 2}", "--skip-name-resolve"]
        self._spawn("mariadbd", ["mariadbd", "--no-defaults", *where, *net, *memory, *hasty])
        client = ["mariadb", "--no-defaults", "-uroot", sock, "-e"]
        self.wait("mariadb", lambda: "1" in self.run(*client, "select 1", check=False), 120)
        self.run(
            *client,
            "create database if not exists slurm_acct_db;"
            "create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm';"
            "grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';",
        )

    def _start_slurm(self) -> None:
        p = self.plan
        if p.net == "netns":
            for words in (["link", "add", p.bridge, "type", "bridge"], ["link", "set", p.bridge, "up"]):
                self.run("ip", *words, check=False)
            self.run("ip", "addr", "replace", f"{p.controller}/24", "dev", p.bridge)
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self.wait("slurmdbd", lambda: "Cluster" in self.run("sacctmgr", "show", "cluster", check=False), 60)
        self.run("sacctmgr", "-ni", "add", "cluster", "lab", check=False)
        self._spawn("slurmctld", ["slurmctld", "-D"])
        self.wait("slurmctld", self.is_up, 60)
        for node in p.nodes:
            self.start_node(node)
        self.wait("idle nodes", lambda: self.node_states() == dict.fromkeys(p.nodes, "idle"), 240)

    def node_states(self) -> dict[str, str]:
        text = self.run("sinfo", "-h", "-N", "-p", "prod", "-o", "%N %t", check=False)
        return dict(line.split() for line in text.splitlines())

    def run(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        """A command in the lab's environment; its output. Raises LabError if it fails and `check`."""
        try:
            done = subprocess.run(words, capture_output=True, text=True, env=self.env, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            if check:
                raise LabError(f"{words[0]} did not answer within {timeout:.0f} s; see {self.plan.root}/log") from None
            return ""
        if check and done.returncode:
            raise LabError(f"{' '.join(words)} failed: {done.stderr.strip()}; see {self.plan.root}/log")
        return done.stdout

    def wait(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise LabError(f"waited {seconds:.0f} s for {what}; see {self.plan.root}/log")
            time.sleep(0.1)

    def _popen(self, name: str, words: list[str]) -> int:
        with (self.plan.dir / "log" / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env, start_new_session=True
            )
        return process.pid

    def _spawn(self, name: str, words: list[str]) -> None:
        self._remember(name, self._popen(name, words))

    def _remember(self, name: str, pid: int) -> None:
        self.plan.pids[name] = [pid, start_ticks(pid)]
        self._save()

    def _forget(self, name: str) -> None:
        self.plan.pids.pop(name, None)
        self._save()

    def _save(self) -> None:
        self.state.write_text(json.dumps(asdict(self.plan), indent=1))

    def _stop(self, name: str, number: int) -> None:
        pid, ticks = self.plan.pids[name]
        if ticks and start_ticks(pid) == ticks:
            os.kill(pid, number)
            end = time.monotonic() + 15
            while start_ticks(pid) == ticks and time.monotonic() < end:
                time.sleep(0.05)
            if start_ticks(pid) == ticks:
                os.kill(pid, signal.SIGKILL)
        self._forget(name)

    def _sweep(self) -> None:
        """Kill what jobs left behind: every process with this lab's mark in its environment, except ourselves."""
        mark = f"GRHPC_LAB={self.plan.root}".encode()
        ancestors = set(lineage(os.getpid()))
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in ancestors:
                continue
            with contextlib.suppress(OSError):
                words = (entry / "environ").read_bytes().split(b"\0")
                is_job = any(w.startswith(b"SLURM_JOB_ID=") for w in words) or b"slurm" in (entry / "comm").read_bytes()
                if mark in words and is_job:
                    os.kill(int(entry.name), signal.SIGKILL)

    def _stepds(self, node: str) -> Iterator[int]:
        """The step daemons of a node in ports mode: those that hold its log open."""
        log = f"{self.plan.root}/log/slurmd.{node}.log"
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                is_stepd = entry.name.isdigit() and b"slurmstepd" in (entry / "cmdline").read_bytes()
                if is_stepd and any(os.readlink(fd) == log for fd in (entry / "fd").iterdir()):
                    yield int(entry.name)
