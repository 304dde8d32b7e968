"""Imports point down, heavy libraries stay where they belong, and files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from forked import LIMIT

import robust_adapt

ROOT = Path(robust_adapt.__file__).parent
LAYERS = [
    {"errors"},
    {"ball", "checks", "files"},
    {"records"},
    {"epsilon", "outputs"},
    {"answers", "archives", "config", "losses", "arithmetic", "distributed", "random_states"}
    | {"statistics", "upstream"},
    {"recipes", "data", "models", "features", "reporting"},
    {"attacks", "weights"},
    {"auto_attack", "evaluation"},
    {"leaderboard", "sanity", "training"},
    {"runs"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
SEAMS = {"upstream", "attacks", "auto_attack", "leaderboard", "models"}
UPSTREAM = {"torchattacks", "robustbench", "autoattack", "pyautoattack"}
LIGHT = [
    "robust_adapt",
    *(f"robust_adapt.{name}" for name in ("errors", "ball", "checks", "files", "records", "config", "recipes")),
]
LIGHT += [f"robust_adapt.{name}" for name in ("epsilon", "reporting", "cli")]
MANY = {"DiverseAttack", "EpsilonController", "autoattack", "benchmark", "evaluate", "evaluate_model"}
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path):
    """``attacks/table.py`` belongs to the module ``attacks``."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(path):
    """Every module named by an import, by importlib.import_module, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def functions_of(path):
    """(name, function) for each of a file; a constructor is called as its class."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    classes = {id(method): node.name for node in nodes if isinstance(node, ast.ClassDef) for method in node.body}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield classes[id(node)] if node.name == "__init__" else node.name, node


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(ROOT)))
def path(request):
    return request.param


def test_imports_point_down_only(path):
    ours = module_of(path)
    if ours == "__init__":  # loads the public names when they are asked for
        return
    assert ours in LAYER, f"{ours} has no layer in this test"
    for name in imports_of(path):
        if name.split(".")[0] != "robust_adapt":
            continue
        theirs = name.split(".")[1]
        if theirs in (ours, "__version__"):
            continue
        assert LAYER[theirs] < LAYER[ours], f"{ours} imports {theirs}"


def test_attack_and_benchmark_libraries_stay_behind_their_seams(path):
    used = {name.split(".")[0] for name in imports_of(path)} & UPSTREAM
    assert not used or module_of(path) in SEAMS


def test_only_the_command_line_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or module_of(path) == "cli"


def test_functions_fit_on_a_screen(path):
    for name, node in functions_of(path):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        assert lines <= 50, f"{name} has {lines} lines"


def test_files_fit_in_a_head(path):
    assert len(path.read_text().splitlines()) <= 250


def test_few_functions_have_many_parameters():
    """Objects carry what goes together; where a public function has more than 7, its docstring says why."""
    ours = [path for path in FILES if module_of(path) != "upstream"]  # whose signatures are others'
    many = {name for path in ours for name, node in functions_of(path) if len(parameters_of(node)) > 7}
    assert many <= MANY, many - MANY


def parameters_of(node):
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_nothing_heavy_is_imported_at_start_up():
    """Each in turn in one fresh interpreter: the first that pulls in torch is named."""
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'torchattacks', 'robustbench', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
