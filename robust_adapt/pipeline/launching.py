"""Fabric for a config: one process, or several that it starts here or that torchrun or SLURM have started."""

import inspect
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel

from robust_adapt.doors import check_whole
from robust_adapt.errors import ConfigError, RobustAdaptError
from robust_adapt.pipeline.building import device_of
from robust_adapt.processes import Processes

T = TypeVar("T")
_LOOK_SECONDS, _GRACE_SECONDS = 5, 25


def launch(device: str = "auto", *, devices: int = 1, nodes: int = 1, precision: str = "32-true") -> Fabric:
    """Fabric with all its processes running; more than one are ``devices`` on each of ``nodes`` machines.

    torchrun's own numbers come before ours. Where nobody has started the other processes Fabric does, by running this
    very command again: whatever stands before this call happens in each of them. Raises ``ConfigError``.
    """
    check_whole("devices", devices, example=1)
    check_whole("nodes", nodes, example=1)
    accelerator = device_of(device)
    devices, nodes = _of_torchrun() or (devices, nodes)
    if devices * nodes == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    # attacks ask the module inside DDP, where a broadcast of buffers comes too late: they are averaged after each step
    known = inspect.signature(DistributedDataParallel).parameters
    broadcast = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    strategy = DDPStrategy(gradient_as_bucket_view=True, **{broadcast: False})
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy
        )
        fabric.launch()
        fabric.barrier()  # none leaves before all have come
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigError(
            f"Expected {devices} devices of {accelerator} on {nodes} machine(s), but got: "
            f"{str(error).splitlines()[0]} Give as many `--devices` as there are."
        ) from error
    except RuntimeError as error:
        raise RobustAdaptError(
            f"Expected {devices * nodes} processes to meet, but got: {str(error).splitlines()[0]}; see what the others "
            "said."
        ) from error
    if fabric.local_rank and isinstance(strategy.cluster_environment, LightningEnvironment):
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return fabric


def load_together(processes: Processes, load: Callable[[], T]) -> T:
    """What ``load`` gives, in the first process first: it may download and unpack what the others only read."""
    loaded: list[T] = []
    processes.first(lambda: loaded.append(load()))
    return loaded[0] if loaded else load()


def _end_with(parent: int) -> None:
    """End this process once the one that started it has: it may wait for files that nobody writes any more. What a
    broken message to the dead one has to say is said first."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _of_torchrun() -> tuple[int, int] | None:
    """Processes a machine and machines, as torchrun has started them."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here
