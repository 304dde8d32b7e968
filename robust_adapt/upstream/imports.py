"""A lazy import finder that makes torchattacks, robustbench and pyautoattack work side by side."""

import ast
import importlib
import importlib.resources
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


def is_shadowed() -> bool:
    """Whether the installed ``robustbench`` is the old copy that torchattacks' wheel carries, or what is left of it."""
    spec = _find_elsewhere("robustbench")
    return spec is not None and not _is_real("robustbench", spec) and _place(spec).parent.name in _INSTALLED


def resnets() -> ModuleType:
    """RobustBench's ``resnet.py`` alone: the package around it brings timm and the whole zoo, which takes seconds."""
    prepare()
    spec = None if RESNETS in sys.modules or "robustbench" in sys.modules else _find_elsewhere("robustbench")
    _refuse_other("robustbench", spec)
    if spec is None or not spec.submodule_search_locations:
        return importlib.import_module(RESNETS)
    parts = RESNETS.split(".")[1:]
    file = Path(next(iter(spec.submodule_search_locations)), *parts).with_suffix(".py")
    own = spec_from_file_location(RESNETS, file)
    sys.modules[RESNETS] = module = module_from_spec(own)  # robustbench, when it is imported, takes this one
    own.loader.exec_module(module)
    return module


class UpstreamFinder(MetaPathFinder):
    """Answers for four names, checks four and leaves every other import alone; what is really installed always wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "robustbench":
            spec = _find_elsewhere(fullname)
            _refuse_other(fullname, spec)
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                spec.loader = _QuietLoader(spec.loader.name, spec.loader.path)
            return spec
        if fullname in ("torchattacks", "pyautoattack", "torchvision"):
            _refuse_other(fullname, _find_elsewhere(fullname))
        if fullname == "robustbench.loaders" and not _is_installed("pkg_resources"):
            return _with_pkg_resources(_find_elsewhere(fullname, path))
        if fullname == "autoattack" and not _is_real(fullname, _find_elsewhere(fullname)):
            return spec_from_loader(fullname, _AutoAttackLoader(), is_package=True)
        if fullname.startswith("autoattack.") and _is_ours(sys.modules.get("autoattack")):
            return spec_from_loader(fullname, _AliasLoader())
        return None


class _AutoAttackLoader(Loader):
    """The package ``autoattack``: everything of pyautoattack, with the reference's signatures on ``AutoAttack``."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        upstream = importlib.import_module("pyautoattack")
        names = {name: value for name, value in vars(upstream).items() if not name.startswith("__")}
        module.__dict__.update(names, __version__=upstream.__version__)
        module.AutoAttack = importlib.import_module("robust_adapt.upstream.reference").AutoAttack


class _AliasLoader(Loader):
    """A submodule ``autoattack.x``: the very object that ``pyautoattack.x`` is."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

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
    """Executes ``robustbench.loaders`` with a stand-in ``pkg_resources`` that is gone again afterwards.

    Only that module keeps it: elsewhere ``import pkg_resources`` goes on failing, as it should.
    """

    def exec_module(self, module: ModuleType) -> None:
        sys.modules["pkg_resources"] = _pkg_resources()
        try:
            super().exec_module(module)
        finally:
            sys.modules.pop("pkg_resources", None)


def _pkg_resources() -> ModuleType:
    stand_in = ModuleType("pkg_resources", "The one function of pkg_resources that robustbench.loaders calls.")
    stand_in.resource_filename = _resource_filename
    return stand_in


def _resource_filename(module_name: str, resource: str) -> str:
    """The path of a file beside the named module (or inside the named package)."""
    package = importlib.import_module(module_name).__spec__.parent
    return str(importlib.resources.files(package).joinpath(resource))


def _with_pkg_resources(spec: ModuleSpec | None) -> ModuleSpec | None:
    if spec is not None and isinstance(spec.loader, SourceFileLoader):
        spec.loader = _LoadersLoader(spec.loader.name, spec.loader.path)
    return spec


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
    if source is None or not source.is_file() or name != "robustbench":
        return source is not None and source.is_file()
    statements = ast.parse(source.read_bytes()).body
    return any(isinstance(each, ast.FunctionDef) and each.name == "benchmark" for each in statements)


def _place(spec: ModuleSpec) -> Path:
    """The folder of a package, the file of a module."""
    return Path(next(iter(spec.submodule_search_locations or ()), spec.origin or spec.name))


def _is_installed(name: str) -> bool:
    """A bare folder of that name in the working directory (a namespace package, without origin) does not count."""
    if name in sys.modules:
        return True
    spec = _find_elsewhere(name)
    return spec is not None and spec.origin is not None


def _is_ours(module: ModuleType | None) -> bool:
    return module is not None and isinstance(module.__spec__.loader, _AutoAttackLoader)


def _find_elsewhere(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """What all other finders say: editable installs bring their own, so asking sys.path is not enough."""
    for finder in sys.meta_path:
        if not isinstance(finder, UpstreamFinder) and hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, path, None)
            if spec is not None:
                return spec
    return None
