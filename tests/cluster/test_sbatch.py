"""Three forms of one request: what submitit writes, what `plan` shows, what the plain templates say."""

import shlex
from pathlib import Path

import pytest
from submitit.slurm.slurm import SlurmExecutor

from grhpc.cluster import sbatch
from grhpc.cluster.role import AGAIN, FINAL, ROLES
from grhpc.config import RoleConfig
from tests.cluster.conftest import new_run

TEMPLATES = Path(__file__).parents[2] / "slurm"
# The RoleConfig that says what a template says.
TWINS = {
    "train": RoleConfig(cpus_per_task=8, gpus_per_node=8, mem_gb=128, tasks_per_node=8, time_min=1440),
    "sft": RoleConfig(cpus_per_task=8, gpus_per_node=8, mem_gb=64, tasks_per_node=8, time_min=1440),
    "rollout": RoleConfig(cpus_per_task=8, gpus_per_node=1, mem_gb=64, tasks=4, time_min=240),
    "verify": RoleConfig(cpus_per_task=8, gpus_per_node=1, mem_gb=64, tasks=2, time_min=240),
    "evaluate": RoleConfig(cpus_per_task=8, gpus_per_node=1, mem_gb=64, tasks=8, time_min=240),
}
FULL = RoleConfig(
    tasks=12,
    nodes=2,
    tasks_per_node=4,
    gres="gpu:h100:4",
    gpus_per_node=3,  # gres wins
    cpus_per_task=6,
    mem_gb=1.5,
    time_min=90,
    partition="spot",
    account="lab",
    qos="low",
    constraint="h100&ib",
    exclude="n[3-4]",
    signal_s=300,
    max_concurrent=5,
    python="python3.11",
    prefix="apptainer exec --nv image.sif",
    setup=["module load cuda"],
    env={"NCCL_DEBUG": "WARN it all"},
    extra={"reservation": "night", "exclusive": True},
)


def submitit_text(role: RoleConfig, tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The batch script that submitit makes, without a SLURM."""
    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 1))
    executor = SlurmExecutor(tmp_path, python=sbatch.python_command(role))
    executor.update_parameters(**sbatch.parameters("grhpc-role", "RUN_ID", role))
    if tasks > 1:
        executor.parameters["map_count"] = tasks
    return executor._make_submission_file_text(executor._submitit_command_str, "uid")


def options(text: str) -> dict[str, str]:
    """Directives by name."""
    lines = (shlex.split(line)[1] for line in text.splitlines() if line.startswith("#SBATCH"))
    return {name: value for name, _, value in (line.removeprefix("--").partition("=") for line in lines)}


def megabytes(text: str) -> str:
    return str(int(text[:-1]) * 1024) + "M" if text.endswith("G") else text


def srun_options(text: str, role: RoleConfig) -> list[str]:
    """The words of the srun line before the interpreter, without folders."""
    line = text.replace("\\\n", " ").partition("\nsrun ")[2].partition("\n")[0]
    words = shlex.split(line.replace("$SLURM_CPUS_PER_TASK", str(role.cpus_per_task)))
    return [Path(word).name for word in words[: words.index("-u") - 1]]


@pytest.mark.parametrize("role", ROLES)
def test_template_and_submitit_agree(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = TWINS[role]
    ours = (TEMPLATES / f"{role}.sbatch").read_text()
    theirs = submitit_text(twin, 1 if role in sbatch.ONE_JOB else twin.tasks, tmp_path, monkeypatch)
    mine, its = options(ours), options(theirs)
    assert its.pop("comment") == "grhpc:RUN_ID"  # known only to a run
    assert its.pop("job-name") == "grhpc-role" and mine.pop("job-name") == f"grhpc-{role}"
    assert Path(its.pop("output")).name == Path(mine.pop("output")).name
    mine["mem"] = megabytes(mine["mem"])
    assert mine == its

    assert srun_options(ours, twin) == srun_options(theirs, twin)
    tail = "\n".join(sbatch.COME_BACK)
    assert ours.rstrip().endswith(tail) and theirs.rstrip().endswith(tail)
    listen = "\n".join(sbatch.LISTEN)
    assert all(text.index(listen) < text.index("\nsrun ") for text in (ours, theirs))


@pytest.mark.parametrize("role", ROLES)
def test_a_runs_own_script_is_the_template_with_its_configuration(role: str, tmp_path: Path) -> None:
    section = "train" if role == "sft" else role
    config = new_run(tmp_path, "slurm", **{section: TWINS[role]}).settings()
    ours, run_dir = sbatch.script(role, config, "RUN_ID", str(tmp_path / "my runs")), str(tmp_path / "my runs")
    template = (TEMPLATES / f"{role}.sbatch").read_text()
    mine, its = options(ours), options(template)
    assert (mine.pop("chdir"), mine.pop("comment")) == (run_dir, "grhpc:RUN_ID")
    assert (mine.pop("job-name"), its.pop("job-name")) == (f"stub-{role}", f"grhpc-{role}")
    assert mine == its | {"mem": megabytes(its["mem"])}
    assert srun_options(ours, TWINS[role]) == srun_options(template, TWINS[role])
    begin = template.index("export PYTHONPATH=")
    ours = ours.replace(f'code":{shlex.quote(sbatch.package_root())}"$', "code$")  # what a run without code imports
    assert f"run_dir='{run_dir}'\n{template[begin : template.index('srun --')]}" in ours
    assert ours[ours.index(" -u -m ") :] == template[template.index(" -u -m ") :]


def test_an_evaluations_jobs_bear_its_name_and_its_runs(tmp_path: Path) -> None:
    config = new_run(tmp_path / "tiny" / "eval" / "paper", "slurm", "v000012", evaluate=RoleConfig()).settings()
    assert sbatch.job_name(config, "evaluate") == "tiny-eval-paper-v000012-evaluate"
    alone = new_run(tmp_path, "slurm", "paper", evaluate=RoleConfig()).settings()
    assert sbatch.job_name(alone, "evaluate") == "paper-evaluate"


def test_a_runs_own_script_has_every_wish_of_its_role(tmp_path: Path) -> None:
    text = sbatch.script("rollout", new_run(tmp_path, "slurm", rollout=FULL).config(), "RUN_ID", "/runs/x")
    wanted = sbatch.directives("stub-rollout", "RUN_ID", FULL, FULL.tasks)
    extra = {"chdir": "/runs/x", "output": "logs/rollout/%A_%a_0_log.out"}
    assert options(text) == options("\n".join(f"#SBATCH {shlex.quote(d)}" for d in wanted)) | extra
    assert text.index("export NCCL_DEBUG='WARN it all'\n") < text.index("module load cuda\n") < text.index("\nsrun ")
    assert "\n    apptainer exec --nv image.sif python3.11 -u -m grhpc.cluster.role rollout" in text


@pytest.mark.parametrize("tasks", [1, 12])
def test_plan_shows_what_submitit_writes(tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = options(submitit_text(FULL, tasks, tmp_path, monkeypatch))
    written.pop("output")
    shown = "\n".join(f"#SBATCH {shlex.quote(d)}" for d in sbatch.directives("grhpc-role", "RUN_ID", FULL, tasks))
    assert options(shown) == written


def test_every_wish_of_a_role_reaches_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = submitit_text(FULL, 12, tmp_path, monkeypatch)
    assert options(text) == {
        "account": "lab",
        "array": "0-11%5",
        "comment": "grhpc:RUN_ID",
        "constraint": "h100&ib",
        "cpus-per-task": "6",
        "exclude": "n[3-4]",
        "exclusive": "",
        "gres": "gpu:h100:4",
        "job-name": "grhpc-role",
        "mem": "1536M",
        "nodes": "2",
        "ntasks-per-node": "4",
        "open-mode": "append",
        "output": str(tmp_path / "%A_%a_0_log.out"),
        "partition": "spot",
        "qos": "low",
        "requeue": "",
        "reservation": "night",
        "signal": "USR2@300",
        "time": "90",
    }
    lines = text.splitlines()
    assert "export NCCL_DEBUG='WARN it all'" in lines
    assert lines.index("module load cuda") < next(i for i, line in enumerate(lines) if line.startswith("srun"))
    assert " apptainer exec --nv image.sif python3.11 -u -m submitit" in text


def forms(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The batch script of one role in its three forms."""
    twin, section = TWINS[role], "train" if role == "sft" else role
    config = new_run(tmp_path, "slurm", **{section: twin}).settings()
    return {
        "submitit": submitit_text(twin, 1 if role in sbatch.ONE_JOB else twin.tasks, tmp_path, monkeypatch),
        "the run's own": sbatch.script(role, config, "RUN_ID", str(tmp_path)),
        "the template": (TEMPLATES / f"{role}.sbatch").read_text(),
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_form_has_the_options_that_the_laws_need(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form, text in forms(role, tmp_path, monkeypatch).items():
        asked, words = options(text), srun_options(text, TWINS[role])
        assert "requeue" in asked, f"{form}: a lost node, or a preemption, would be the job's end"
        assert asked["signal"] == "USR2@120", f"{form}: no warning, or one that NCCL catches (USR1), or the shell (B:)"
        assert asked["open-mode"] == "append", f"{form}: the next life would wipe out the log of the one that crashed"
        assert "--kill-on-bad-exit=1" in words, f"{form}: ranks would wait for one that died, until the time limit"
        cpus = f"--cpus-per-task={TWINS[role].cpus_per_task}"
        assert cpus in words, f"{form}: since 22.05 srun does not take it from the job: every rank on one core"
        assert "--unbuffered" in words, f"{form}: the last words before a death would not reach the log"
        one_job = role in sbatch.ONE_JOB
        assert ("array" in asked) is not one_job, f"{form}: a trainer is one world, other roles scale by the task"


def test_templates_know_the_roles_exit_codes() -> None:
    tail = "\n".join(sbatch.COME_BACK)
    assert f'"{AGAIN} "*) rm' in tail and f'"0 "* | "{FINAL} "* |' in tail
