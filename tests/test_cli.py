"""The command line as a person meets it: examples, nearest verbs, two-line errors, nothing half-made."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from grhpc.cli import VERBS, build_parser, main, resolve
from grhpc.cluster.amend import amend, amended
from grhpc.cluster.job import start_ticks
from grhpc.cluster.sbatch import package_root
from grhpc.cluster.submissions import Submission, record
from grhpc.config_file import load, with_absolute_paths
from grhpc.store import code
from grhpc.store.ledger import Ledger
from grhpc.store.rundir import RunDir


def assert_two_lines(done, problem, remedy):
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ") and problem in lines[0], done.stderr
    assert lines[1].startswith("  do: ") and remedy in lines[1], done.stderr


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def submit(capfd, monkeypatch, root):
    """A function: words -> what `python submit.py words...` does in `cwd`, but in this process."""

    def run(*words, cwd=root, **env):
        monkeypatch.chdir(cwd)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        try:
            exit_code = main(list(words))
        except SystemExit as ended:
            exit_code = ended.code
        return Done(exit_code, *capfd.readouterr())

    return run


@pytest.fixture
def tiny(root, tmp_path):
    """A function: verb and settings -> the verb's words for the tiny config, with all that it makes in tmp_path."""

    def make(verb, *overrides):
        settings = [f"run.dir={tmp_path}/runs", f"data.prepared={tmp_path}/prepared", *overrides]
        return [verb, str(root / "configs" / "tiny.yaml"), *(w for s in settings for w in ("--set", s))]

    return make


def test_bare_prints_three_examples(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("python submit.py ") for line in lines)


def test_the_examples_verbs_exist(capsys):
    main([])
    words = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert set(words) <= {verb.name for verb in VERBS} | {"--help"}


@pytest.mark.parametrize(
    ("word", "remedy"), [("strat", "did you mean 'start'?"), ("stauts", "did you mean 'status'?"), ("xyzzy", "verbs: ")]
)
def test_a_misspelt_verb_names_the_nearest(submit, word, remedy):
    assert_two_lines(submit(word, "x"), f"no verb {word!r}", remedy)


def test_wrong_arguments_are_two_lines(submit):
    assert_two_lines(submit("status"), "required: RUN", "do: python submit.py status --help")
    assert_two_lines(submit("sft"), "required: CONFIG", "do: python submit.py sft --help")
    assert_two_lines(submit("scale", "tiny", "rollout", "x"), "invalid int value", "do: python submit.py scale --help")
    assert_two_lines(submit("status", "tiny", "--wach"), "status does not know: --wach", "submit.py status --help")


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_every_verb_has_help_and_a_target(verb, capsys):
    assert callable(resolve(verb.target))
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([verb.name, "--help"])
    assert caught.value.code == 0 and verb.help in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("overrides", "problem", "remedy"),
    [
        (["rollout.group_sice=4"], "unknown setting 'rollout.group_sice'", "did you mean 'rollout.group_size'?"),
        (
            ["train.tensor_parallel=3", "cluster.train.tasks_per_node=3"],
            "train.tensor_parallel 3 does not divide",
            "1, 2",
        ),
        (
            ["train.pipeline_parallel=3", "cluster.train.tasks_per_node=3"],
            "pipeline_parallel 3 does not divide",
            "use one",
        ),
        (["verify.engine.tensor_parallel=3"], "verify.engine.tensor_parallel 3 does not divide", "use one of"),
        (["policy.model=/nowhere/model"], "policy.model: no such model folder", "name a folder that exists"),
        (["policy.model=some/where"], "policy.model: neither a folder nor a Hub model", "download it"),
        (["policy.model=configs"], "policy.model: configs has no config.json", "Hugging Face model folder"),
        (
            ["rollout.max_response_tokens=99999", "rollout.engine.max_model_tokens=null"],
            "prompt + response may have",
            "lower",
        ),
        (["data.source=mine.jsonl"], "data.source is mine.jsonl", "--set evaluate.oracle="),
        (["data.source=/nowhere.jsonl", "evaluate.oracle="], "no such dataset file", "data.source"),
        (["data.source="], "data.source is empty", "name a dataset"),
        (["data.columns={question: prompt}"], "no column 'prompt'", "columns there: id, question"),
    ],
)
def test_start_refuses_bad_input_before_it_makes_anything(submit, tiny, tmp_path, overrides, problem, remedy):
    assert_two_lines(submit(*tiny("start", *overrides)), problem, remedy)
    assert list(tmp_path.iterdir()) == []


def test_start_without_sbatch_makes_nothing(submit, tiny, tmp_path):
    done = submit(*tiny("start", "cluster.executor=slurm"), PATH=str(tmp_path))
    assert_two_lines(done, "no", "cluster.executor")
    assert "sbatch" in done.stderr and list(tmp_path.iterdir()) == []


def test_start_without_launching_makes_the_run_and_says_how_to_submit_it(submit, tiny, tmp_path):
    """On a machine without sbatch, and twice over."""
    words = [*tiny("start", "cluster.executor=slurm", "data.limit=64"), "--no-launch"]
    first, again = submit(*words, PATH=str(tmp_path)), submit(*words, PATH=str(tmp_path))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    run = RunDir.open(tmp_path / "runs" / "tiny")
    commands = [line.split() for line in first.stdout.splitlines() if line.startswith("sbatch ")]
    assert [words[1] for words in commands] == [f"{run.jobs_dir}/{r}.sbatch" for r in ("rollout", "verify", "train")]
    assert first.stdout.splitlines()[-5:] == again.stdout.splitlines()
    for role, (_, path) in zip(("rollout", "verify", "train"), commands, strict=True):
        text = Path(path).read_text()
        assert f"#SBATCH --comment=grhpc:{run.run_id}\n" in text and f"#SBATCH --chdir={run.root}\n" in text
        assert run.log_dir(role).is_dir()


@pytest.mark.parametrize(("rows", "there"), [(60, 6), (9, 0)])
def test_start_says_that_held_out_prompts_are_few_and_refuses_none(submit, tiny, tmp_path, rows, there):
    """Of a file without a split of its own a tenth is held out."""
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(f'{{"question": "What is {i} + 1?", "answer": "{i + 1}"}}\n' for i in range(rows)))
    mine = (f"data.source={source}", "evaluate.oracle=", "cluster.executor=slurm")
    done = submit(*tiny("start", *mine), "--no-launch")
    if there:
        said = "held-out: all 6 prompts that there are, fewer than evaluate.heldout_prompts, which is 160"
        assert done.returncode == 0 and said in done.stdout.splitlines()
        return
    assert_two_lines(done, "heldout_every is 5, and", "--set evaluate.heldout_every=0")
    assert not (tmp_path / "runs").exists()
    assert submit(*tiny("start", *mine, "evaluate.heldout_every=0"), "--no-launch").returncode == 0


def test_resume_without_launching_writes_the_scripts_that_are_missing(submit, tiny, tmp_path, slurm):
    words = [*tiny("start", "cluster.executor=slurm", "data.limit=64"), "--no-launch"]
    assert submit(*words).returncode == 0
    run = RunDir.open(tmp_path / "runs" / "tiny")
    run.request_stop("enough")
    lives = f'case $* in *%k*) echo "7_0|PENDING|tiny-rollout|grhpc:{run.run_id}" ;; esac'
    (tmp_path / "programs" / "squeue").write_text(f"#!/bin/sh\n{lives}\n")
    done = submit("resume", str(run.root), "--no-launch")
    commands = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    assert commands == [f"sbatch {run.jobs_dir}/{role}.sbatch" for role in ("verify", "train")], done.stderr
    assert run.stop_reason() is None
    refused = submit("resume", str(run.root), "--no-launch", "--set", "cluster.train.time_min=99")
    assert_two_lines(refused, "1 tasks of tiny live", "submit.py stop tiny")
    (tmp_path / "programs" / "squeue").write_text("#!/bin/sh\n")
    assert submit("resume", str(run.root), "--no-launch", "--set", "cluster.train.time_min=99").returncode == 0
    assert "#SBATCH --time=99\n" in (run.jobs_dir / "train.sbatch").read_text()


def test_start_without_launching_needs_slurms_executor(submit, tiny, tmp_path):
    assert_two_lines(submit(*tiny("start"), "--no-launch"), "cluster.executor is local", "cluster.executor=slurm")
    assert list(tmp_path.iterdir()) == []


def test_start_refuses_a_folder_of_other_things(submit, tiny, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    assert_two_lines(submit(*tiny("start")), "is not empty and holds no run", "run.name")
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def test_start_refuses_a_run_directory_in_use(submit, tiny, tmp_path):
    words = tiny("start")
    RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    assert_two_lines(submit(*words), "in use by a run that is not finished", "python submit.py resume tiny")


def test_start_after_the_trainer_refused_says_why_and_how_to_go_on(submit, tiny, tmp_path):
    words = tiny("start")
    run = RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    run.events("train", "70").emit("error", problem="the policy is no good")
    done = submit(*words)
    assert_two_lines(done, "none of its jobs runs; its train said: the policy is no good", "resume tiny (--set section")
    record(run.jobs_dir, Submission("local", "rollout", str(os.getpid()), started=start_ticks(os.getpid())))
    assert_two_lines(submit(*words), "1 tasks of it run without a trainer", "python submit.py stop tiny, then python")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A pretended SLURM without accounting, whose jobs end at once; what `refuse` holds is refused. Returns it."""
    programs, refuse = tmp_path / "programs", tmp_path / "refuse"
    programs.mkdir()
    refuse.write_text("job-name=tiny-train")
    sbatch = f"""grep -q "$(cat {refuse})" $1 && {{ echo "sbatch: error: invalid account" >&2; exit 1; }}
    cp $1 {tmp_path}/last.sh; echo "Submitted batch job $$" """
    for name, text in {"sbatch": sbatch, "sacct": "exit 1", "squeue": "", "srun": "", "scancel": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return refuse


def test_a_refused_start_leaves_the_name_free(submit, tiny, tmp_path, slurm):
    words = tiny("start", "cluster.executor=slurm", "data.limit=64")
    assert_two_lines(submit(*words), "the train job was refused: sbatch: error: invalid account", "mend cluster.train")
    assert list((tmp_path / "runs").iterdir()) == []
    slurm.write_text("nothing")
    done = submit(*words)
    assert done.returncode == 0 and "train job" in done.stdout


SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"


def test_start_where_slurm_does_not_answer_makes_nothing(submit, tiny, tmp_path, slurm):
    (tmp_path / "programs" / "squeue").write_text(f"#!/bin/sh\n{SILENT}\n")
    refused = submit(*tiny("start", "cluster.executor=slurm", "data.limit=64"))
    assert_two_lines(refused, "SLURM does not answer: slurm_load_jobs error: Unable to contact", "try again")
    assert not (tmp_path / "runs").exists()


def test_a_start_during_which_slurm_goes_away_says_that_the_folder_stays_and_how_to_go_on(
    submit, tiny, tmp_path, slurm
):
    """sbatch's reply may be lost though the job is queued."""
    words, programs = tiny("start", "cluster.executor=slurm", "data.limit=64"), tmp_path / "programs"
    works = (programs / "sbatch").read_text()
    (programs / "sbatch").write_text(f"#!/bin/sh\ncp $0 {programs}/squeue\n{SILENT}\n")
    run_dir = tmp_path / "runs" / "tiny"
    remedy = f"when `squeue` answers: python submit.py resume {run_dir}; or, if it lists none, remove the folder"
    assert_two_lines(submit(*words), f"Unable to contact slurm controller; {run_dir} stays: whether jobs", remedy)
    again = submit(*words)
    assert_two_lines(again, f"{run_dir} is there already: SLURM does not answer", "then resume it")
    (programs / "squeue").write_text("#!/bin/sh\n")
    (programs / "sbatch").write_text(works)
    slurm.write_text("nothing")
    assert submit("resume", str(run_dir)).returncode == 0


def test_resume_with_other_settings(submit, tiny, tmp_path, slurm):
    slurm.write_text("nothing")
    assert submit(*tiny("start", "cluster.executor=slurm", "data.limit=64")).returncode == 0
    run = RunDir.open(tmp_path / "runs" / "tiny")
    Ledger.open_next(run.ledger_dir, run_id=run.run_id)  # as the trainer does first
    done = submit("resume", str(run.root), "--set", "cluster.train.time_min=99")
    assert done.returncode == 0, done.stderr
    assert "cluster.train.time_min: " in done.stdout and "-> 99\n" in done.stdout
    assert "#SBATCH --time=99\n" in (tmp_path / "last.sh").read_text()  # the trainer goes last
    refused = submit("resume", str(run.root), "--set", "grpo.clip_high=0.9")
    assert_two_lines(refused, "grpo.clip_high cannot change once a run has begun", "these may change: cluster.")
    assert [sorted(c["settings"]) for c in RunDir.open(run.root).about["changes"]] == [["cluster.train.time_min"]]
    moved = submit("resume", str(run.root), "--set", f"data.prepared={tmp_path}/elsewhere")
    assert_two_lines(moved, "are not those this run began with", "put the prepared folder back")
    (tmp_path / "prepared").rename(tmp_path / "elsewhere")
    done = submit("resume", str(run.root), "--set", f"data.prepared={tmp_path}/elsewhere")
    assert done.returncode == 0, done.stderr


def test_a_run_keeps_the_code_it_began_with_until_it_is_given_other(submit, tiny, tmp_path, slurm, monkeypatch):
    slurm.write_text("nothing")
    assert submit(*tiny("start", "cluster.executor=slurm", "data.limit=64")).returncode == 0
    run = RunDir.open(tmp_path / "runs" / "tiny")
    own = f'export PYTHONPATH="$run_dir/code":{shlex.quote(package_root())}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    script = (tmp_path / "last.sh").read_text()
    assert own in script and f"run_dir={run.root}\n" in script and (run.code_dir / "grhpc" / "cli.py").is_file()
    (begun,) = run.about["code"]
    files = code._read(code.PACKAGE) | {"new.py": b""}  # as after a `git pull`
    monkeypatch.setattr(code, "_read", lambda package: files)
    done = submit("resume", str(run.root))
    assert done.returncode == 0 and "tiny goes on with its own code, 0.1.0, " in done.stdout
    with_it = f"PYTHONPATH={run.root}/code PYTHONSAFEPATH=1 python -m grhpc.cli resume {run.root} --set"
    refused = submit("resume", str(run.root), "--set", "store.lease_s=77")
    assert_two_lines(refused, "tiny has code of its own, 0.1.0, ", with_it)
    assert RunDir.open(run.root).about["code"] == [begun] and not (run.code_dir / "grhpc" / "new.py").exists()

    done = submit("resume", str(run.root), "--code", "--set", "store.lease_s=77")
    assert done.returncode == 0 and "code: 0.1.0, " in done.stdout and "store.lease_s" in done.stdout
    run = RunDir.open(run.root)
    assert run.about["code"][0] == begun and run.about["code"][1]["sha256"] != begun["sha256"]
    assert (run.code_dir / "grhpc" / "new.py").exists() and run.config().store.lease_s == 77
    assert [list(change["settings"]) for change in run.about["changes"]] == [["code"], ["store.lease_s"]]
    assert "changed: code '0.1.0, " in submit("status", str(run.root)).stdout
    assert "has this code already" in submit("resume", str(run.root), "--code").stdout
    record(run.jobs_dir, Submission("local", "train", str(os.getpid()), started=start_ticks(os.getpid())))
    files["newer.py"] = b""
    assert_two_lines(submit("resume", str(run.root), "--code"), "would go on with the old code", "stop tiny")


def test_start_again_on_a_live_run_says_so(submit, tiny, tmp_path):
    words = tiny("start")
    run = RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    record(run.jobs_dir, Submission("local", "train", str(os.getpid()), started=start_ticks(os.getpid())))
    done = submit(*words)
    assert done.returncode == 0 and "tiny is already running" in done.stdout
    assert len(list(run.jobs_dir.iterdir())) == 1


def test_start_again_on_a_finished_run_shows_its_result(submit, tiny, tmp_path):
    words = tiny("start")
    run = RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    run.events("train", "70").emit("step", step=1, reward_mean=0.5)
    run.finish({"step": 25})
    done = submit(*words)
    assert done.returncode == 0 and "is finished" in done.stdout and "run.name=tiny-2" in done.stdout
    assert "step    1 of 25" not in done.stdout  # the table, and not every event again


def test_start_with_other_settings_than_the_runs_is_refused(submit, tiny, tmp_path):
    words = tiny("start")
    run = RunDir.create(tmp_path / "runs" / "tiny", with_absolute_paths(load(words[1], words[3::2])))
    Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    asked = submit(*tiny("start", "cluster.train.time_min=99"))
    assert_two_lines(asked, "cluster.train.time_min (30 there, 99 here)", "resume tiny --set cluster.train.time_min=99")
    run.finish({"step": 25})
    other = tiny("start", "train.lr=1e-3", "train.steps=9", "grpo.clip_high=0.3", "run.seed=4")
    refused = submit(*other)
    assert_two_lines(refused, "run.seed (0 there, 4 here), train.lr (0.0003 there, 0.001 here), and 1 more", "tiny-2")
    assert "resume" not in refused.stderr
    assert submit(*words).returncode == 0


def test_start_as_before_a_resume_that_changed_settings_is_no_other_setting(submit, tiny, tmp_path):
    words = tiny("start")
    run = RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    for minutes in (60, 90):
        amend(run, *amended(run, [f"cluster.train.time_min={minutes}"]))
    run.finish({"step": 25})
    assert submit(*words).returncode == 0


@pytest.mark.parametrize("verb", ["status", "logs", "report", "audit", "stop", "resume"])
def test_an_unknown_run_is_two_lines(submit, verb, tmp_path):
    assert_two_lines(submit(verb, "nowhere", cwd=tmp_path), "no run 'nowhere'", "give its folder")


def test_an_unknown_run_names_the_nearest(submit, tiny, tmp_path):
    words = tiny("start")
    RunDir.create(tmp_path / "runs" / "tiny", load(words[1], words[3::2]))
    assert_two_lines(submit("status", "tyni", cwd=tmp_path), "no run 'tyni'", "did you mean 'tiny'?")
    for version in ("v000010", "v000020"):
        (folder := tmp_path / "runs" / "tiny" / "eval" / "mine" / version).mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    newest = "did you mean 'tiny/eval/mine/v000020'?"
    assert_two_lines(submit("report", "tiny/eval/mine", cwd=tmp_path), "no run 'tiny/eval/mine'", newest)


def test_prepare_then_prepare_again(submit, tiny, tmp_path):
    first, again = submit(*tiny("prepare", "data.limit=64")), submit(*tiny("prepare", "data.limit=64"))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "train: 64 prompts" in first.stdout and "train: 64 prompts" in again.stdout
    assert json.loads((tmp_path / "prepared" / "manifest.json").read_text())["prompts"]["train"] == 64


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("grhpc.cli.resolve", lambda target: lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_missing_package_is_two_lines_and_names_the_python_that_has_it(monkeypatch, submit, tmp_path):
    monkeypatch.setattr("grhpc.cli.resolve", lambda target: lambda args: importlib.import_module("nopackage.part"))
    monkeypatch.setattr("grhpc.cli.__file__", str(tmp_path / "grhpc" / "cli.py"))
    lacks = f"the Python at {sys.executable} lacks nopackage"
    assert_two_lines(submit("doctor"), lacks, ". .venv/bin/activate (made by `make demo`), or pip install -e .")
    (tmp_path / ".venv/lib/python3.11/site-packages/nopackage").mkdir(parents=True)
    (tmp_path / ".venv/bin").mkdir()
    (tmp_path / ".venv/bin/python").touch()
    assert_two_lines(submit("doctor"), lacks, f"use {tmp_path}/.venv/bin/python")


@pytest.mark.parametrize("module", ["grhpc.nowhere", "yaml.nowhere"])
def test_a_missing_module_of_what_is_there_is_a_bug(monkeypatch, module):
    monkeypatch.setattr("grhpc.cli.resolve", lambda target: lambda args: importlib.import_module(module))
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_a_full_disk_is_two_lines(monkeypatch, capsys):
    def fail(args):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr("grhpc.cli.resolve", lambda target: fail)
    assert main(["doctor"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err == ["error: No space left on device: /some/file", "  do: free space there, or mend the permissions"]


def test_the_script_itself_runs(root):
    done = subprocess.run([sys.executable, "submit.py", "strat"], cwd=root, capture_output=True, text=True)
    assert_two_lines(done, "no verb 'strat'", "did you mean 'start'?")


def test_from_another_folder_its_children_find_the_code_too(root, tmp_path):
    words = ["prepare", str(root / "configs" / "tiny.yaml"), "--set", f"data.prepared={tmp_path}/prepared"]
    words += ["--set", f"policy.model={root}/grhpc/data/tiny_models/policy"]
    done = subprocess.run([sys.executable, str(root / "submit.py"), *words], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "prepared").is_dir(), done.stderr.decode()


def test_a_reader_that_goes_away_is_no_error(root):
    done = subprocess.run(
        f"{sys.executable} submit.py --help | head -1",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.stdout.startswith("usage:") and not done.stderr


def test_the_readmes_table_has_every_verb(root):
    table = (root / "README.md").read_text().partition("| verb | does |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()]
    told = re.findall(r"`([a-z-]+)", " ".join(cells))
    assert sorted(told) == sorted(verb.name for verb in VERBS)
