"""A real SLURM on one machine: several nodes, slurmdbd and sacct, a preemptible partition, fake GPUs.

    tests/cluster/cluster install            the packages it needs (Debian, Ubuntu; as root)
    tests/cluster/cluster up [--nodes 4] [--net netns|ports]
    tests/cluster/cluster status
    tests/cluster/cluster crash n2           the node loses power; `node n2` plugs it in again
    tests/cluster/cluster down

As root every node is a host of its own (network, process, host and mount namespaces) that can be crashed; as an
ordinary user the nodes share the host and differ by port. All state is in one folder (--dir, $GRHPC_LAB or
/tmp/grhpc-lab-$USER), nothing in /etc; SLURM_CONF points there. Only the standard library is used.

Invariant: a process is only signalled if its pid and its start time are those written down when it was started.
"""

import argparse
import getpass
import os
import sys
from pathlib import Path

from tests.cluster.lab import Lab
from tests.cluster.lab_host import LabError, install


def default_root() -> Path:
    return Path(os.environ.get("GRHPC_LAB") or f"/tmp/grhpc-lab-{getpass.getuser()}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=["install", "up", "status", "crash", "node", "down"])
    parser.add_argument("node", nargs="?", default="")
    parser.add_argument("--dir", type=Path, default=default_root())
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--net", choices=["auto", "netns", "ports"], default="auto")
    asked = parser.parse_args(words)
    try:
        return act(asked)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def act(asked: argparse.Namespace) -> int:
    if asked.verb == "install":
        install()
        return 0
    lab = Lab(asked.dir, asked.nodes, asked.net)
    if asked.verb == "up":
        lab.up()
    elif asked.verb == "down":
        lab.down()
    elif not lab.is_up():
        print("the cluster is down; `tests/cluster/cluster up` starts it")
        return 1
    elif asked.verb == "status":
        print(f"up, in {lab.plan.root} ({lab.plan.net}); `. {lab.plan.root}/env.sh` to use it")
        print(lab.run("sinfo") + lab.run("squeue"), end="")
    elif asked.node not in lab.plan.nodes:
        raise LabError(f"{asked.verb} which node? one of {', '.join(lab.plan.nodes)}")
    elif asked.verb == "crash":
        lab.crash(asked.node)
    else:
        lab.start_node(asked.node)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
