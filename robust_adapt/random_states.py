"""The random states of torch, NumPy and Python: forked, and as plain data that a file keeps."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def random_fork(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Random states of torch (CPU, the model's and the current GPU), NumPy and Python, given back on leaving."""
    cuda = {device.index or 0} if device is not None and device.type == "cuda" else set()
    # torchattacks seeds the current device, wherever the model is
    if torch.cuda.is_initialized():
        cuda.add(torch.cuda.current_device())
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=sorted(cuda)):
        try:
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                for index in cuda:
                    torch.cuda.default_generators[index].manual_seed(seed)
                np.random.seed(seed % 2**32)
                random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def random_states() -> dict[str, Any]:
    """All of them as tensors, numbers and texts. NumPy's and Python's a model or a data set of the user's may use."""
    version, numbers, gauss = random.getstate()
    numpy: Any = np.random.get_state()
    kind, keys, *rest = numpy
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), *rest],
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(state: dict[str, Any]) -> None:
    """Put back what ``random_states`` gave; those of GPUs only where their number is the same."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
