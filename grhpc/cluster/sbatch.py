"""What each role asks of SLURM: from RoleConfig to submitit's parameters.

Three forms of one request, held together by tests: what submitit writes, the templates slurm/*.sbatch, and `script`,
a run's own copy of its template. Does not know: run directories, whether SLURM is there. Invariant: pure; the same
configuration gives the same text.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import grhpc
from grhpc.config import AnyConfig, RoleConfig

# Around the role, in the batch script: outside any container, where scontrol is.
LISTEN = r"""# SLURM ends a job at its time limit by TERM, to this shell too, and would not bring it back.
id="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
seen() { squeue --noheader --jobs="$id" --format="%T %r"; }
crashes="$run_dir/jobs/$id.crashes"
life="${SLURM_RESTART_COUNT:-0}"
# Ten crashes in a row end it. Each line names the life that crashed; the next life reads it. After the second and later
# ones SLURM waits, up to half an hour: a full disk may be mended. The requeue's own TERM must not cut this short.
again() {
    echo "$life" >>"$crashes" && num=$(wc -l <"$crashes") && [ "$num" -lt 10 ] || return
    (trap '' TERM; scontrol requeue "$id" &&
        { [ "$num" -eq 1 ] || scontrol update JobId="$id" StartTime="now+$(((num - 1) * (num - 1) * 30))"; })
}
trap 'heard=1; [ "$(seen)" = "COMPLETING TimeLimit" ] && again' TERM
# A shell acts on a signal only while it waits, so the role runs beside it; a signal cuts the wait short.
srun() {
    command srun "$@" &
    while heard=; wait $!; code=$?; [ -n "$heard" ]; do :; done
    return $code
}""".splitlines()
COME_BACK = r"""code=$?
# One rank said so, whatever became of the others when it left.
[ "$code" = 0 ] || [ ! -e "$run_dir/jobs/$id-$life.final" ] || code=2
# Over (0), or a person must act first (2). What is COMPLETING by now was cancelled, or is brought back by SLURM itself.
case "$code $(seen)" in
    "0 "* | "2 "* | *" COMPLETING "*) ;;
    "75 "*) rm -f "$crashes"; scontrol requeue "$id" ;; # drained
    *) again ;;
esac
exit $code""".splitlines()


ONE_JOB = ("train", "sft")  # a job whose tasks are the ranks of one world; the other roles are arrays of tasks


def role_config(config: AnyConfig, role: str) -> RoleConfig:
    """The cluster section of a role; both trainers have one."""
    found: RoleConfig = getattr(config.cluster, "train" if role in ONE_JOB else role)
    return found


def job_name(config: AnyConfig, role: str) -> str:
    """What SLURM calls a role's jobs; an evaluation of a run of training is called after both."""
    parts = config.run_dir.parts
    of_a_run = role == "evaluate" and parts[-3:-2] == ("eval",)
    return "-".join([*(parts[-4:] if of_a_run else [config.run.name]), role])


def parameters(name: str, run_id: str, role: RoleConfig, run_dir: str = "") -> dict[str, Any]:
    """The keyword arguments of submitit.SlurmExecutor.update_parameters for one role of the run `name`."""
    optional: dict[str, Any] = {
        "partition": role.partition,
        "account": role.account,
        "qos": role.qos,
        "constraint": role.constraint,
        "exclude": role.exclude,
        "gres": role.gres,
        "gpus_per_node": 0 if role.gres else role.gpus_per_node,
        "mem": "" if role.mem_gb is None else f"{round(role.mem_gb * 1024)}M",
    }
    return {key: value for key, value in optional.items() if value} | {
        "job_name": name,
        "comment": mark(run_id),
        "time": role.time_min,
        "nodes": role.nodes,
        "ntasks_per_node": role.tasks_per_node,
        "cpus_per_task": role.cpus_per_task,
        "signal_delay_s": role.signal_s,
        "array_parallelism": role.max_concurrent or role.tasks,
        "setup": [*setup_lines(role), *place_lines(run_dir), *LISTEN],
        "teardown": COME_BACK,
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={role.cpus_per_task}"],
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": {"requeue": True, **role.extra},
    }


def mark(run_id: str) -> str:
    """The job comment by which a run's jobs are known even where their submission was not written down."""
    return f"grhpc:{run_id}"


def setup_lines(role: RoleConfig) -> list[str]:
    """Shell lines before the role: its environment, then the person's own lines."""
    return [*(f"export {key}={shlex.quote(value)}" for key, value in role.env.items()), *role.setup]


def place_lines(run_dir: str) -> list[str]:
    """Shell lines after those: the run's directory, and its own code before all else that Python may find.

    A run that began without a copy of the code has this checkout's. PYTHONSAFEPATH: not that of the folder we are in.
    """
    root = package_root()
    paths = '"$run_dir/code"' + (f":{shlex.quote(root)}" if root else "")
    path = f'export PYTHONPATH={paths}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1'
    return [f"run_dir={shlex.quote(run_dir)}", path]


def python_command(role: RoleConfig) -> str:
    """The interpreter inside the job as a shell command, container prefix included."""
    return f"{role.prefix} {role.python or shlex.quote(sys.executable)}".strip()


def package_root() -> str:
    """The checkout this runs from, which jobs of a run without code of its own must find; empty where grhpc is
    installed."""
    root = Path(str(grhpc.__file__)).resolve().parent.parent
    return "" if root.name in ("site-packages", "dist-packages") else str(root)


def directives(name: str, run_id: str, role: RoleConfig, tasks: int = 1) -> list[str]:
    """The sbatch options that submitit writes for these parameters, without its log paths; a test compares the two."""
    wanted = parameters(name, run_id, role)
    extra = wanted.pop("additional_parameters")
    signal_s, parallel = wanted.pop("signal_delay_s"), wanted.pop("array_parallelism")
    for key in ("setup", "teardown", "srun_args", "stderr_to_stdout", "wckey"):
        wanted.pop(key)
    wanted |= {"signal": f"USR2@{signal_s}", "open-mode": "append", **extra}
    if tasks > 1:
        wanted["array"] = f"0-{tasks - 1}%{min(tasks, parallel)}"
    options = {key.replace("_", "-"): value for key, value in wanted.items()}
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in sorted(options.items())]


def script(role: str, config: AnyConfig, run_id: str, run_dir: str) -> str:
    """slurm/ROLE.sbatch for one run, with all that its configuration asks for: starts the role without submitit."""
    asked = role_config(config, role)
    tasks = 1 if role in ONE_JOB else asked.tasks
    log = f"logs/{role}/{'%A_%a' if tasks > 1 else '%j'}"
    options = directives(job_name(config, role), run_id, asked, tasks)
    options = sorted([*options, f"--chdir={run_dir}", f"--output={log}_0_log.out"])
    lines = ["#!/bin/bash", f"# The {role} role of the run {config.run.name}; any option may be changed here."]
    for name, equals, value in (option.partition("=") for option in options):
        lines.append(f"#SBATCH {name}{equals}{shlex.quote(value) if equals else ''}")
    lines += ["", *setup_lines(asked), *place_lines(run_dir), *LISTEN, ""]
    srun = f'srun --unbuffered --output "{log}_%t_log.out" --kill-on-bad-exit=1'
    lines += [f"{srun} --cpus-per-task={asked.cpus_per_task} \\"]
    lines += [f'    {python_command(asked)} -u -m grhpc.cluster.role {role} "$run_dir"', "", *COME_BACK, ""]
    return "\n".join(lines)
