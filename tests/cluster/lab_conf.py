"""The texts of a SLURM lab's configuration files. Pure: the same Plan gives the same text."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Plan:
    """One lab: `root` holds all its state; `net` is "netns" (every node a host of its own) or "ports" (one host)."""

    root: str
    net: str
    user: str
    host: str
    num_nodes: int = 4
    cpus: int = 16  # what each node pretends to have
    mem_mb: int = 64000
    gpus: int = 8
    port: int = 16800  # ctld, dbd and sql take the three from here on; in ports mode the nodes take the next
    subnet: str = "10.77.0"
    bridge: str = "grhpc0"
    gpu_files: str = "/dev/tty"
    pids: dict[str, list[int]] = field(default_factory=dict)  # name -> process id and start time in ticks

    @property
    def dir(self) -> Path:
        return Path(self.root)

    @property
    def controller(self) -> str:
        return f"{self.subnet}.254" if self.net == "netns" else "127.0.0.1"

    @property
    def nodes(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.num_nodes + 1)]


def slurm_conf(p: Plan) -> str:
    return f"""\
ClusterName=lab
SlurmctldHost={p.host}({p.controller})
SlurmUser={p.user}
SlurmdUser={p.user}
SlurmctldPort={p.port}
AuthType=auth/munge
AuthInfo=socket={p.root}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={p.root}/state
SlurmdSpoolDir={p.root}/spool/%n
SlurmctldPidFile={p.root}/pid/slurmctld.pid
SlurmdPidFile={p.root}/pid/slurmd.%n.pid
SlurmctldLogFile={p.root}/log/slurmctld.log
SlurmdLogFile={p.root}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
TaskProlog={p.root}/etc/task_prolog
# no cgroups, no systemd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SwitchType=switch/none
MpiDefault=none
# more CPUs and memory than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
# quick decisions
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_resolution=1,bf_max_job_test=2000,bf_continue,default_queue_depth=2000,sched_interval=2,batch_sched_delay=0,sched_max_job_start=0,preempt_youngest_first
MaxArraySize=1001
MaxJobCount=20000
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=00:00:00
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
BatchStartTimeout=20
MessageTimeout=10
SlurmctldTimeout=30
TCPTimeout=2
SlurmdTimeout=10
InactiveLimit=0
OverTimeLimit=0
CompleteWait=0
ReturnToService=2
HealthCheckInterval=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={p.controller}
AccountingStoragePort={p.port + 1}
AccountingStoragePass={p.root}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
NodeName=DEFAULT CPUs={p.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={p.cpus} ThreadsPerCore=1 \
RealMemory={p.mem_mb} Gres=gpu:h100:{p.gpus} State=UNKNOWN
{_node_lines(p)}
PartitionName=prod Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=10 MaxTime=INFINITE State=UP
PartitionName=spot Nodes=ALL Default=NO PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 DefaultTime=10 \
MaxTime=INFINITE State=UP
"""


def _node_lines(p: Plan) -> str:
    if p.net == "netns":
        port = p.port + 3
        return "\n".join(
            f"NodeName={n} NodeHostname={n} NodeAddr={p.subnet}.{i} Port={port}" for i, n in enumerate(p.nodes, 1)
        )
    ports = f"[{p.port + 3}-{p.port + 2 + p.num_nodes}]"
    return f"NodeName=n[1-{p.num_nodes}] NodeHostname={p.host} NodeAddr=127.0.0.1 Port={ports}"


def gres_conf(p: Plan) -> str:
    """Fake GPUs: SLURM wants character devices, and takes CUDA_VISIBLE_DEVICES from the numbers in their names."""
    files = f"{p.gpu_files}[0-{p.gpus - 1}]"
    return f"AutoDetect=off\nNodeName=n[1-{p.num_nodes}] Name=gpu Type=h100 Flags=nvidia_gpu_env File={files}\n"


def cgroup_conf(p: Plan) -> str:
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"


def slurmdbd_conf(p: Plan) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={p.root}/munge.socket
DbdHost=localhost
DbdAddr={p.controller}
DbdPort={p.port + 1}
SlurmUser={p.user}
DebugLevel=info
LogFile={p.root}/log/slurmdbd.log
PidFile={p.root}/pid/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={p.port + 2}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=1
"""


def hosts(p: Plan) -> str:
    lines = ["127.0.0.1 localhost", f"{p.controller} {p.host}"]
    return "\n".join(lines + [f"{p.subnet}.{i} {n}" for i, n in enumerate(p.nodes, 1)]) + "\n"


def task_prolog(p: Plan) -> str:
    """Every node has a node-local folder, as sites give by $SLURM_TMPDIR."""
    return f'#!/bin/sh\necho "export SLURM_TMPDIR={p.root}/local/$SLURMD_NODENAME"\n'


FILES = {
    "slurm.conf": slurm_conf,
    "gres.conf": gres_conf,
    "cgroup.conf": cgroup_conf,
    "slurmdbd.conf": slurmdbd_conf,
    "hosts": hosts,
    "task_prolog": task_prolog,
}
