"""A run's own code: whole, known by its commit and digest, imported before whatever else is there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_rows import small_config

import grhpc
from grhpc.errors import ConfigError, StoreError
from grhpc.store import code
from grhpc.store.code import Code, present
from grhpc.store.rundir import RunDir

ROOT = Path(grhpc.__file__).resolve().parents[1]
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *words: str) -> str:
    env = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", "-C", str(folder), *words], env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def python(program: str, cwd: Path, *paths: Path, **env: str) -> str:
    """What a program prints that runs in `cwd` as a job's interpreter does."""
    env = {**os.environ, "PYTHONPATH": ":".join(map(str, paths)), "PYTHONSAFEPATH": "1", **env}
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def new_run(folder: Path, ours: Code | None = None) -> RunDir:
    ours = ours or present()
    return RunDir.create(folder / "run", small_config(), ours.begin, code=ours.first())


def other(line: str = "") -> Code:
    """This package with another line in it, and so with another digest."""
    files = present().files | {"__init__.py": f'__version__ = "9.9"\n{line}\n'.encode()}
    return Code(files, {**present().about, "version": "9.9", "sha256": code._digest(files)})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that holds a copy of this package, committed, and ignores runs/."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "grhpc", root / "grhpc", ignore=shutil.ignore_patterns("__pycache__", "tiny_models"))
    (root / ".gitignore").write_text("runs/\n__pycache__/\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        git(root, *words)
    return root


ABOUT = "import json; from grhpc.store.code import present; print(json.dumps(dict(present().about)))"


def test_a_copy_has_all_that_the_package_has_but_models(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    there = {p.relative_to(run.code_dir / "grhpc").as_posix() for p in run.code_dir.glob("grhpc/**/*") if p.is_file()}
    tracked = subprocess.run(["git", "ls-files", "grhpc"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    names = {name.removeprefix("grhpc/") for name in tracked if "/tiny_models/" not in name and (ROOT / name).exists()}
    assert names and names <= there
    assert all((run.code_dir / "grhpc" / name).read_bytes() == (ROOT / "grhpc" / name).read_bytes() for name in there)
    assert not [name for name in there if "__pycache__" in name or name.endswith((".pyc", ".safetensors"))]


def test_a_run_knows_its_code(tmp_path: Path) -> None:
    (entry,) = RunDir.open(new_run(tmp_path).root).about["code"]
    assert entry["version"] == grhpc.__version__ and len(entry["sha256"]) == 64 and entry["folder"] == "grhpc-1"
    assert entry["python"] == ".".join(map(str, sys.version_info[:3])) and entry["libraries"]["submitit"]


def test_nothing_heavy_is_loaded_to_know_it() -> None:
    heavy = "print([m for m in ('torch', 'vllm', 'megatron', 'transformers', 'submitit') if m in sys.modules])"
    assert python(f"import sys; from grhpc.store.code import present; present(); {heavy}", ROOT, ROOT) == "[]"


def test_the_commit_is_named_and_whether_the_code_has_changed_since(checkout: Path) -> None:
    about = json.loads(python(ABOUT, checkout.parent, checkout))
    assert (about["commit"], about["changed"]) == (git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "notes.txt").write_text("beside the package")
    assert json.loads(python(ABOUT, checkout.parent, checkout)) == about | {"t": pytest.approx(about["t"], abs=600)}
    (checkout / "grhpc" / "new.py").write_text("")
    changed = json.loads(python(ABOUT, checkout.parent, checkout))
    assert changed["changed"] is True and changed["sha256"] != about["sha256"]


@pytest.mark.parametrize("how", ["no git", "no repository", "in another's repository"])
def test_where_there_is_no_commit_none_is_named(how: str, checkout: Path) -> None:
    path = "/nonexistent" if how == "no git" else os.environ["PATH"]
    if how == "no repository":
        shutil.rmtree(checkout / ".git")
    elif how == "in another's repository":  # an environment within a checkout, say
        (checkout / "runs").mkdir()
        shutil.move(checkout / "grhpc", checkout / "runs" / "grhpc")
        checkout /= "runs"
    about = json.loads(
        python(ABOUT, checkout.parent, checkout, PATH=path, GIT_CEILING_DIRECTORIES=str(checkout.parent))
    )
    assert (about["commit"], about["changed"], about["version"]) == (None, None, grhpc.__version__)


def test_the_code_of_a_run_keeps_its_commit_where_it_begins_another_run(checkout: Path) -> None:
    """As the evaluations do that a trainer starts; the checkout has gone on since."""
    make = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_store_code import new_run\n"
    )
    program = make.replace("sys.argv[1]", repr(str(Path(__file__).parent))) + "new_run(Path('runs'))"
    (checkout / "runs").mkdir()
    python(program, checkout, checkout)
    commit = git(checkout, "rev-parse", "HEAD")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "later")
    about = json.loads(python(ABOUT, checkout, checkout / "runs" / "run" / "code"))
    assert (about["commit"], about["changed"]) == (commit, False)


def test_a_job_imports_the_runs_code_whatever_became_of_the_checkout(tmp_path: Path, checkout: Path) -> None:
    run = new_run(tmp_path)
    (checkout / "grhpc" / "__init__.py").write_text("raise SystemExit('the checkout')")
    found = python("import grhpc.cluster.role as r; print(r.__file__)", checkout, run.code_dir, checkout)
    assert found == str(run.code_dir / "grhpc" / "cluster" / "role.py")


def test_other_code_takes_its_place_and_both_stay(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    before = (run.code_dir / "grhpc-1" / "__init__.py").read_bytes()
    assert not code.differs(run, present()) and code.differs(run, other())
    other().replace(run, changes=["said"])
    run = RunDir.open(run.root)
    assert [entry["folder"] for entry in run.about["code"]] == ["grhpc-1", "grhpc-2"] and run.about["changes"] == [
        "said"
    ]
    assert not code.differs(run, other()) and code.differs(run, present())
    assert python("import grhpc; print(grhpc.__version__)", tmp_path, run.code_dir) == "9.9"
    assert (run.code_dir / "grhpc-1" / "__init__.py").read_bytes() == before
    assert sorted(os.listdir(run.code_dir)) == ["grhpc", "grhpc-1", "grhpc-2"]


def test_a_task_that_runs_other_code_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path)
    code.refuse_other(run)  # elsewhere, and the same
    with pytest.raises(ConfigError, match="is not the run's code") as caught:
        code.refuse_other(new_run(tmp_path / "other", other()))
    assert "--code" in caught.value.remedy
    monkeypatch.setattr(code, "_read", lambda package: pytest.fail("a task in its place reads no code"))
    monkeypatch.setattr(code, "PACKAGE", (run.code_dir / "grhpc").resolve())
    code.refuse_other(run)
    code.refuse_other(RunDir.create(tmp_path / "old", small_config()))  # of before there was this


def test_a_death_before_the_link_is_set_lets_no_job_work_on_the_old_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(code, "_point", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            other().replace(run)
    run = RunDir.open(run.root)
    program = "import sys; from grhpc.store import code, rundir; from pathlib import Path\n"
    program += "from grhpc.errors import ConfigError\n"
    program += f"try: code.refuse_other(rundir.RunDir.open(Path({str(run.root)!r})))\nexcept ConfigError: print('no')"
    assert python(program, tmp_path, run.code_dir) == "no"
    other("# again").replace(run)
    assert python(program, tmp_path, run.code_dir) == ""


def test_what_a_dead_call_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path)
    refuse: Callable[..., None] = lambda *words, **about: (_ for _ in ()).throw(StoreError("no", "room"))  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(RunDir, "amend", refuse)
        with pytest.raises(StoreError):
            other("# first").replace(run)
    code.refuse_other(RunDir.open(run.root))  # as it was
    other("# second").replace(run)
    assert b"# second" in (run.code_dir / "grhpc" / "__init__.py").read_bytes()
