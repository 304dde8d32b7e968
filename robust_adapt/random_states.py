"""The random states of torch, NumPy and Python: forked, and as plain data that a file keeps."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def random_fork(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Random states of torch (CPU and GPUs), NumPy and Python from a seed, if there is one, given back on leaving."""
    if device is not None and device.type == "cuda":
        torch.cuda.init()
    before = random_states()
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if torch.cuda.is_initialized():  # all of them: torchattacks seeds the current one, wherever the model is
                torch.cuda.manual_seed_all(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        yield
    finally:
        restore_random_states(before)


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
