"""Is this machine ready: one row per fact, each with the exact command that mends it."""

import importlib
import platform
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robust_adapt.upstream.imports import MEND_ROBUSTBENCH, is_ours
from robust_adapt.upstream.provenance import NOT_INSTALLED, version

if TYPE_CHECKING:  # torch takes a second to import, and half of the commands do not need it
    import torch

Status = Literal["ok", "warn", "fail"]
Result = tuple[Status, str, str]

MEND_REQUESTS = "pip install --upgrade requests urllib3 idna"
SAFE_REQUESTS = "2.32"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row of ``doctor``: what was looked at, and what was found.

    status: ``ok``, ``warn`` (works, but read the detail) or ``fail`` (something will not work). fix: the exact command
    that mends it, or empty.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def doctor(data_root: str | Path = "data") -> list[Check]:
    """All checks, in the order of the table below. Never raises: a check that does becomes a row that says so."""
    rows = CHECKS | {"cifar10": (partial(_cifar10, Path(data_root)), "")}
    return [_run(name, check, mend) for name, (check, mend) in rows.items()]


def bf16_is_fast(device: "torch.device | str") -> bool:
    """Whether bfloat16 has its own arithmetic on this device: what ``precision="auto"`` asks. Times nothing."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


def channels_last_corrupts(model: "torch.nn.Module", device: "torch.device | str") -> bool:
    """Whether training a model channels-last writes past the end of memory on some CPUs: oneDNN's AVX2 gradient of a
    strided 1 x 1 convolution of fewer than 8 channels does. Told by the layers alone, so that all CPUs do the same."""
    import torch

    narrow = (
        max(layer.kernel_size) == 1 and max(layer.stride) > 1 and layer.in_channels // layer.groups < 8
        for layer in model.modules()
        if isinstance(layer, torch.nn.Conv2d)
    )
    return torch.device(device).type == "cpu" and any(narrow)


def _run(name: str, check: Callable[[], Result], mend: str) -> Check:
    try:
        with warnings.catch_warnings():  # timm and torch.jit deprecate at import; no row is about that
            warnings.simplefilter("ignore")
            status, detail, fix = check()
    except Exception as error:  # whatever a broken installation raises at import is what the row has to show
        status, detail, fix = "fail", f"{type(error).__name__}: {error}", mend
    return Check(name=name, status=status, detail=detail, fix=fix)


def _requirements() -> Result:
    """Whether everything that the package asks for is installed, and not older than that."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(each) for each in metadata.requires("robust_adapt") or ()]
    except metadata.PackageNotFoundError:
        return "warn", "robust_adapt runs from a checkout that is not installed", "pip install ."
    found = {each: version(each.name) for each in wanted if each.marker is None}
    unmet = [each for each, one in found.items() if one == NOT_INSTALLED or not each.specifier.contains(one, True)]
    if not unmet:
        return "ok", f"all {len(found)} met", ""
    mend = " ".join(f'"{each}"' for each in unmet)
    return "fail", ", ".join(f"{each.name} {found[each]}" for each in unmet), f"pip install {mend}"


def _torch() -> Result:
    import torch

    importlib.import_module("torchvision")  # of another torch it fails here
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    devices = ", ".join(names) or ("mps" if torch.backends.mps.is_available() else "no GPU")
    return "ok", f"{torch.__version__}, {devices}, {torch.get_num_threads()} CPU threads", ""


def _bf16() -> Result:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    taken = "bf16" if bf16_is_fast(device) else "float32"
    return "ok", f"precision 'auto' takes {taken} on {device}", ""


def _imported(name: str) -> Result:
    importlib.import_module(name)
    return "ok", version(name), ""


def _autoattack() -> Result:
    ours = is_ours(importlib.import_module("autoattack"))
    return "ok", f"pyautoattack {version('pyautoattack')}" if ours else "the reference implementation", ""


def _requests() -> Result:
    from packaging.version import Version

    found = metadata.version("requests")
    if Version(found) < Version(SAFE_REQUESTS):
        return "warn", f"{found} has known vulnerabilities; torchattacks pins it and never imports it", MEND_REQUESTS
    return "ok", found, ""


def _timm() -> Result:
    from packaging.requirements import Requirement

    found, wanted = metadata.version("timm"), map(Requirement, metadata.requires("robustbench") or ())
    pin = next((each for each in wanted if each.name == "timm"), None)
    if pin is None or pin.specifier.contains(found):
        return "ok", found, ""
    return "warn", f"{found}, where robustbench asks for {pin}", f'pip install "{pin}"'


def _cifar10(root: Path) -> Result:
    folder = root / "cifar-10-batches-py"
    if all((folder / name).is_file() for name in ("data_batch_1", "data_batch_5", "test_batch")):
        return "ok", f"in {root}", ""
    download = f"from torchvision.datasets import CIFAR10; CIFAR10({str(root)!r}, download=True)"
    return "warn", f"not in {root}; digits need no download", f'python -c "{download}"'


def _disk() -> Result:
    free = shutil.disk_usage(".").free / 2**30
    return "ok" if free >= 2 else "warn", f"{free:.1f} GiB free here", ""


CHECKS: dict[str, tuple[Callable[[], Result], str]] = {  # name: (check, what mends it where it raises)
    "python": (lambda: ("ok", platform.python_version(), ""), ""),
    "requirements": (_requirements, "pip install packaging"),
    "torch": (_torch, "pip install --upgrade torch torchvision"),
    "bf16": (_bf16, ""),
    "torchattacks": (partial(_imported, "torchattacks"), "pip install torchattacks"),
    "robustbench": (partial(_imported, "robustbench"), MEND_ROBUSTBENCH),
    "autoattack": (_autoattack, "pip install pyautoattack"),
    "requests": (_requests, MEND_REQUESTS),
    "timm": (_timm, "pip install robustbench"),
    "disk": (_disk, ""),
}
