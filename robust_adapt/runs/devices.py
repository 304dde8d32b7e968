"""Fabric for a config: one process, or several that it starts here or that torchrun or SLURM have started."""

import inspect
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

from robust_adapt import upstream
from robust_adapt.checks import check_whole
from robust_adapt.config import Config
from robust_adapt.distributed import Processes
from robust_adapt.errors import ConfigError, RobustAdaptError, first_line, shown

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # precision and processes
T = TypeVar("T")
Precision = Literal["32-true", "bf16-mixed"]
_LOOK_SECONDS, _GRACE_SECONDS = 5, 25
_TORCHRUN = {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "WORLD_SIZE"}


def launch(device: str = "auto", *, devices: int = 1, nodes: int = 1, precision: Precision = "32-true") -> Fabric:
    """Fabric with all its processes running; ``devices`` of them on each of ``nodes`` machines.

    torchrun's own numbers take precedence. Where nobody has started the other processes Fabric does, by running this
    very command again: so whatever comes before this call is done in each of them. Raises ``ConfigError``.
    """
    check_whole("devices", devices, example=1)
    check_whole("nodes", nodes, example=1)
    accelerator, torchrun = device_of(device), os.environ.keys() >= _TORCHRUN
    if torchrun:
        here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        devices, nodes = here, world // here
    if devices * nodes == 1:
        return launch_alone(accelerator, precision=precision)
    _check_room(accelerator, devices, nodes, started=torchrun)
    environment = None if torchrun else _environment(devices, nodes)
    # attacks ask the module inside DDP, where a broadcast of buffers comes too late: they are averaged after each step
    known = inspect.signature(DistributedDataParallel).parameters
    broadcast = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, broadcast: False}
    strategy = DDPStrategy(**options)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision,
            strategy=strategy,
            plugins=environment,
        )
        fabric.launch()
        fabric.barrier()  # none leaves before all have come
    except (ValueError, TypeError, LookupError, OSError, MisconfigurationException) as error:
        raise ConfigError(
            f"Expected {devices} devices of {accelerator} on {nodes} machine(s), but got: "
            f"{first_line(error)} Give as many `--devices` as there are."
        ) from error
    except RuntimeError as error:
        raise RobustAdaptError(
            f"Expected {devices * nodes} processes to meet, but got: {first_line(error)}; see what the others said."
        ) from error
    if fabric.local_rank and isinstance(strategy.cluster_environment, LightningEnvironment):
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return fabric


def launch_alone(device: str = "auto", *, precision: Precision = "32-true") -> Fabric:
    """Fabric with this process alone, whatever torchrun, SLURM or MPI have left in its environment."""
    accelerator, _, index = device_of(device).partition(":")
    only = [int(index)] if index else 1
    return Fabric(accelerator=accelerator, devices=only, precision=precision, plugins=[LightningEnvironment()])


def device_of(name: str) -> str:
    """What the setting ``device`` names, as torch writes it. Raises ``ConfigError`` where it is not there."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]*))?", str(name)) is None:
        raise ConfigError(
            f"Expected `device` auto, cpu, cuda, one GPU such as cuda:1, or mps, but got {shown(name)}; auto takes a "
            "GPU where torch sees one."
        )
    seen = {"cpu": ["cpu"], "cuda": [f"cuda:{number}" for number in range(torch.cuda.device_count())]}
    seen["mps"] = ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return "cuda" if seen["cuda"] else "cpu"
    kind = name.partition(":")[0]
    if not seen[kind] or name not in (kind, *seen[kind]):
        raise ConfigError(
            f"Expected a device for `device` {name}, but torch sees {', '.join(seen[kind]) or f'no {kind}'}; use "
            f"`--device {(seen[kind] or seen['cpu'])[0]}`."
        )
    return name


def precision_of(config: Config) -> Precision:
    """The config's own, or for ``auto`` bf16 where the device computes in it fast."""
    if config.precision != "auto":
        return config.precision
    return "bf16-mixed" if upstream.bf16_is_fast(device_of(config.device)) else "32-true"


def load_together(processes: Processes, load: Callable[[], T]) -> T:
    """What ``load`` gives, in the first process first: it may download and unpack what the others only read."""
    loaded: list[T] = []
    processes.first(lambda: loaded.append(load()))
    return loaded[0] if loaded else load()


def _end_with(parent: int) -> None:
    """End this process once the one that started it has: it may wait for files that nobody writes any more. It stays
    a little longer, so that the error of a message to the dead one can be printed."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _check_room(accelerator: str, devices: int, nodes: int, *, started: bool) -> None:
    """Raise ``ConfigError`` for several processes on one GPU, or more of them on the CPU than it has cores."""
    if accelerator not in ("cpu", "cuda"):
        raise ConfigError(
            f"Expected `device` cpu or cuda for {devices * nodes} processes, but got {accelerator}, which is one "
            "device; use `--devices 1`."
        )
    cores = max(2, os.cpu_count() or 1)  # two can be tried on a single core
    if accelerator == "cpu" and devices > cores and not started:
        raise ConfigError(
            f"Expected `devices` up to {cores}, one for each core of this machine, but got {devices}; use `--devices "
            f"{cores}`."
        )


def _environment(devices: int, nodes: int) -> LightningEnvironment | None:
    """Of SLURM with a single task the processes are Fabric's to start; None leaves the choice to Fabric.

    Raises ``ConfigError`` where the tasks of SLURM are not those processes: they would wait for others for ever.
    """
    if not SLURMEnvironment.detect():
        return None
    if os.environ["SLURM_NTASKS"] == "1" and nodes == 1:
        return LightningEnvironment()
    wanted = {"SLURM_NTASKS": str(devices * nodes), "SLURM_NTASKS_PER_NODE": str(devices)}
    found = {name: os.environ.get(name) for name in (*wanted, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")}
    if None in found.values() or not found.items() >= wanted.items():
        got = ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in found.items())
        raise ConfigError(
            f"Expected tasks of SLURM for `devices` {devices} on each of `nodes` {nodes}, but got {got}; start them "
            f"with `srun --nodes {nodes} --ntasks-per-node {devices}`."
        )
    return None
