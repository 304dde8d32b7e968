"""Real processes of their own that start in a moment: forked from one that has imported everything."""

import multiprocessing
import os
import sys
import time

LIMIT = 600  # seconds: it ends what hangs, it measures nothing
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["robust_adapt.runs", "robust_adapt.cli", "robustbench.model_zoo.architectures.resnet", "sklearn.datasets"]
)


def command(output, *arguments):
    """The command line, what it prints in a file."""
    import torch

    from robust_adapt.cli import main

    torch.set_num_threads(1)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(main(arguments))


def wait_for(path):
    """A first epoch is behind the run once its checkpoint is there."""
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end, f"no {path} after {LIMIT} seconds"
        time.sleep(0.02)
