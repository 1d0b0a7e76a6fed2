"""The house stays as it was drawn: arrows between rooms, light imports, small files, names that resolve."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from grhpc.cli import VERBS
from grhpc.cluster.role import ROLES

PACKAGE = Path(__file__).parent.parent / "grhpc"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
BASE = {"errors", "records", "strict", "ranges", "lifetime", "intervals"}
BASE |= {"config", "sft_config", "eval_config", "kinds", "config_file"}
COMMAND_LINE = {"cli", "start", "evaluation", "verbs", "preflight", "replay", "why"}
# Room -> the rooms it may import, beside itself and the base.
ARROWS = {
    "store": set(),
    "engine": set(),
    "answer": set(),
    "grpo": set(),
    "data": {"store"},
    "judge": {"engine", "answer", "store"},
    "rollout": {"engine", "answer", "grpo", "data", "store"},
    "verify": {"judge", "engine", "answer", "grpo", "data", "store"},
    "train": {"engine", "answer", "grpo", "data", "store"},
    "cluster": {"store"},
    "report": {"store", "data", "cluster", "evaluate"},
    "evaluate": {"judge", "engine", "answer", "data", "store"},
    "evaluate_verifier": {"judge", "engine", "answer", "data", "store", "report"},
}
# Modules that make things for the rooms above them by those rooms' own programs.
WORKSHOPS = {"data/tiny_make.py": {"train", "engine", "answer"}, "data/tiny_measure.py": {"answer"}}
HEAVY = {"torch", "vllm", "megatron", "transformers", "pyarrow", "numpy", "rich", "submitit", "datasets"} | {
    "matplotlib",
    "openai",
}
# Libraries that may be imported inside a function: heavy, and optional to what else the module does.
OPTIONAL = {
    *HEAVY,
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "httpx",
    "math_verify",
    "sympy",
    "psutil",
    "latex2sympy2_extended",
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> set[str]:
    """Every `grhpc.x.y` that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name.startswith("grhpc.")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_one_way(path):
    room, rooms = room_of(path), {name.split(".")[1] for name in imported(path)}
    if room in COMMAND_LINE:
        return
    allowed = BASE | ({room} | ARROWS[room] if room not in BASE else set()) | WORKSHOPS.get(name_of(path), set())
    assert rooms <= allowed, f"{name_of(path)} imports {sorted(rooms - allowed)}"


def test_every_room_is_drawn():
    assert {room_of(path) for path in MODULES} <= set(ARROWS) | BASE | COMMAND_LINE


def test_there_is_no_cycle():
    known = {"grhpc." + name_of(p).removesuffix(".py").replace("/", "."): p for p in MODULES}
    graph = {name: imported(path) & set(known) for name, path in known.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle


def test_no_file_is_called_utils():
    assert not [p for p in PACKAGE.rglob("*") if re.match(r"(utils?|helpers?|misc|common)\b", p.name)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300, f"{name_of(path)} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 50, f"{name_of(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_does_not_know_and_what_always_holds(path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "not know:" in docstring and "Invariant:" in docstring, f"{name_of(path)}: {docstring[:60]!r}"


@pytest.mark.parametrize("path", list(PACKAGE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_a_package_file_is_only_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert [ast.unparse(node).split(" = ")[0] for node in tree.body[1:]] in ([], ["__version__"])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_inside_functions_are_of_optional_libraries(path):
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in OPTIONAL, f"{name_of(path)}:{node.lineno} imports {name} in a function"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_foreign_is_unpickled(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"pickle.load", "pickle.loads", "torch.load", "eval", "exec"}, (
                f"{name_of(path)}: {called}"
            )


def test_the_command_line_is_light():
    probe = f"import sys, grhpc.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["grhpc.cluster.role", "grhpc.report.status", "grhpc.cluster.control"])
def test_what_a_login_node_asks_loads_no_model_library(module):
    heavy = ("torch", "vllm", "megatron", "transformers", "matplotlib", "datasets", "openai")
    probe = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("target", [*ROLES.values(), *(verb.target for verb in VERBS)])
def test_every_dotted_name_resolves(target):
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_test_files_have_different_names():
    """pytest imports them by their bare names."""
    names = [path.name for path in (PACKAGE.parent / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_the_tree_names_no_machine():
    """No workplace's paths and no registry's host: what is here must work anywhere."""
    files = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True).stdout.split("\n")
    places = ("/work" + "/", "/opt" + "/pypi", "/opt" + "/wheels", "download.pytorch" + ".org", "pypi" + ".org")
    for name in filter(None, files):
        path = PACKAGE.parent / name
        if path.suffix in (".safetensors", ".parquet", ".png") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert not [place for place in places if place in text], name
