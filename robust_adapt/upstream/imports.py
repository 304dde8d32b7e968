"""A lazy import finder that makes torchattacks, robustbench and pyautoattack work side by side."""

import ast
import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType

from robust_adapt.errors import UpstreamError

RESNETS = "robustbench.model_zoo.architectures.resnet"
MEND_ROBUSTBENCH = "pip install --force-reinstall --no-deps robustbench==1.1.1"
"""The command that puts the right `robustbench` back."""
_INSTALLED = ("site-packages", "dist-packages")
REAL = {  # a file that each library has, and that somebody's own file or folder of that name has not
    "robustbench": "eval.py",
    "torchattacks": "attack.py",
    "pyautoattack": "autoattack.py",
    "torchvision": "ops/__init__.py",
    "autoattack": "autoattack.py",
}


def prepare() -> None:
    """Make ``import robustbench`` and ``import autoattack`` work, or say why they cannot. Cheap, idempotent.

    Raises ``UpstreamError``, here or at ``import robustbench``, where the copy inside torchattacks' wheel or a file or
    folder of somebody's own has taken robustbench's place.
    """
    if not any(isinstance(finder, UpstreamFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, UpstreamFinder())
    if "robustbench" in sys.modules:
        _refuse_other("robustbench", sys.modules["robustbench"].__spec__)


def resnets() -> ModuleType:
    """RobustBench's ``resnet.py`` alone: the package around it brings timm and the whole zoo, which takes seconds."""
    prepare()
    spec = None if RESNETS in sys.modules or "robustbench" in sys.modules else find_elsewhere("robustbench")
    _refuse_other("robustbench", spec)
    if spec is None or not spec.submodule_search_locations:
        return importlib.import_module(RESNETS)
    own = spec_from_file_location(RESNETS, Path(_place(spec), *RESNETS.split(".")[1:]).with_suffix(".py"))
    assert own is not None and own.loader is not None
    sys.modules[RESNETS] = module = module_from_spec(own)  # robustbench, when it is imported, takes this one
    own.loader.exec_module(module)
    return module


class UpstreamFinder(MetaPathFinder):
    """Answers for four names, checks four and leaves every other import alone; what is really installed always wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "autoattack":
            installed = _is_real(fullname, find_elsewhere(fullname))
            return None if installed else spec_from_loader(fullname, AutoAttackLoader(), is_package=True)
        if fullname.startswith("autoattack."):
            return spec_from_loader(fullname, _AliasLoader()) if is_ours(sys.modules.get("autoattack")) else None
        if fullname in REAL:
            _refuse_other(fullname, find_elsewhere(fullname))
        kind = {"robustbench": _QuietLoader, "robustbench.loaders": _LoadersLoader}.get(fullname)
        if kind is None or (kind is _LoadersLoader and has_pkg_resources()):
            return None
        spec = find_elsewhere(fullname, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = kind(spec.loader.name, spec.loader.path)
        return spec


class AutoAttackLoader(Loader):
    """The package ``autoattack``: everything of pyautoattack, with the reference's signatures on ``AutoAttack``."""

    def exec_module(self, module: ModuleType) -> None:
        upstream = importlib.import_module("pyautoattack")
        names = {name: value for name, value in vars(upstream).items() if not name.startswith("__")}
        own = importlib.import_module("robust_adapt.upstream.reference").AutoAttack
        vars(module).update(names, __version__=upstream.__version__, AutoAttack=own)


class _AliasLoader(Loader):
    """A submodule ``autoattack.x``: the very object that ``pyautoattack.x`` is."""

    def exec_module(self, module: ModuleType) -> None:
        # A module may replace itself while it is executed; handing the object out of create_module would
        # instead overwrite pyautoattack's own __spec__.
        sys.modules[module.__name__] = importlib.import_module(f"py{module.__name__}")


class _QuietLoader(SourceFileLoader):
    """Executes ``robustbench`` without what timm and torch.jit say of themselves while they are imported."""

    def exec_module(self, module: ModuleType) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".torch.jit.* is deprecated")
            warnings.filterwarnings("ignore", "Importing from timm")
            super().exec_module(module)


class _LoadersLoader(SourceFileLoader):
    """Executes ``robustbench.loaders`` with a stand-in ``pkg_resources``: the one function of it that is called there.

    Only that module keeps it: elsewhere ``import pkg_resources`` goes on failing, as it should.
    """

    def exec_module(self, module: ModuleType) -> None:
        sys.modules["pkg_resources"] = stand_in = ModuleType("pkg_resources")
        vars(stand_in)["resource_filename"] = lambda _name, resource: str(Path(self.path).parent / resource)
        try:
            super().exec_module(module)
        finally:
            sys.modules.pop("pkg_resources", None)


def _refuse_other(name: str, spec: ModuleSpec | None) -> None:
    if spec is None or _is_real(name, spec):
        return
    if _place(spec).parent.name not in _INSTALLED:
        raise UpstreamError(
            f"Expected the installed {name}, but Python finds {_place(spec)} before it; rename that, or start from "
            "another folder."
        )
    if name == "robustbench":
        raise UpstreamError(
            "Expected robustbench with its own `benchmark`, but got the old copy that torchattacks' wheel carries; "
            f"run `{MEND_ROBUSTBENCH}`."
        )


def _is_real(name: str, spec: ModuleSpec | None) -> bool:
    """The old copy of robustbench has its ``eval.py`` commented out; uninstalling torchattacks deletes that file."""
    source = None if spec is None else _place(spec) / REAL[name]
    if source is None or not source.is_file():
        return False
    if name != "robustbench":
        return True
    statements = ast.parse(source.read_bytes()).body
    return any(isinstance(each, ast.FunctionDef) and each.name == "benchmark" for each in statements)


def _place(spec: ModuleSpec) -> Path:
    """The folder of a package, the file of a module."""
    return Path(next(iter(spec.submodule_search_locations or ()), spec.origin or spec.name))


def has_pkg_resources() -> bool:
    """A bare folder of that name in the working directory (a namespace package, without origin) does not count."""
    spec = find_elsewhere("pkg_resources")
    return spec is not None and spec.origin is not None


def is_ours(module: ModuleType | None) -> bool:
    """Whether this ``autoattack`` is the one made of pyautoattack."""
    spec = None if module is None else module.__spec__
    return spec is not None and isinstance(spec.loader, AutoAttackLoader)


def find_elsewhere(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """What all other finders say: editable installs bring their own, so asking sys.path is not enough."""
    for finder in sys.meta_path:
        if not isinstance(finder, UpstreamFinder) and hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, path, None)
            if spec is not None:
                return spec
    return None
