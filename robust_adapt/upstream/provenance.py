"""What a record says about the software that made it."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

NOT_INSTALLED = "not installed"
_DISTRIBUTIONS = (
    "robust_adapt",
    "torch",
    "torchvision",
    "torchattacks",
    "robustbench",
    "pyautoattack",
    "lightning-fabric",
    "numpy",
    "scipy",
)


def versions() -> dict[str, str]:
    """The versions of Python, this package and the libraries that decide a number, without importing them."""
    return {"python": platform.python_version()} | {name: version(name) for name in _DISTRIBUTIONS}


def version(distribution: str) -> str:
    """The installed version, or ``"not installed"``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def commit(root: Path | None = None) -> str | None:
    """The git commit of the checkout the package runs from, ``+dirty`` when tracked files differ; else ``None``."""
    root = root or Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps below somebody else's repository
        return None
    # Inside a git hook GIT_DIR and GIT_INDEX_FILE point at some other repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            [*command, "--dirty=+dirty"], env=environment, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
