"""A training that runs on compiles nothing anew, and its steps do not wait for a GPU."""

import dataclasses
import functools

import pytest
import torch
from test_training import CONSISTENT, small, train
from torch import nn

from robust_adapt import runs, training
from robust_adapt.config import BrakeConfig
from robust_adapt.data import load_data
from robust_adapt.records import EpochRecord

COUNTERS = torch._dynamo.utils.counters


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_nothing_is_compiled_anew(backend, tmp_path, monkeypatch):
    """Parts of a batch of 50 have 17 and 16 images, 12 clean ones stand beside it; the brake probes, and validation
    attacks ever other ones.

    aot_eager traces as the real backend does, and generates no code.
    """
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=backend))
    brake = BrakeConfig(every=2, steps=2)
    config = small("deepseek", epochs=8, batch_size=50, compile=True, loss=CONSISTENT, brake=brake)
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, average=0.0))
    graphs = []

    def report(record):
        if isinstance(record, EpochRecord):
            graphs.append(COUNTERS["stats"]["unique_graphs"])

    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        run = train(config, tmp_path, report=report)
    graphs.append(COUNTERS["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert len(run.epochs) == 8 and graphs[0] > 0
    assert graphs[5:] == 4 * graphs[4:5]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ["standard", "pgd", "one-step", "deepseek", "consistent"])
def test_a_step_does_not_wait_for_the_gpu(name):
    """Not for its batch either; every hundredth step reads its pixels, the first one too."""
    config = small("deepseek" if name == "consistent" else name, device="cuda", precision="bf16-mixed")
    if name == "consistent":
        config = dataclasses.replace(config, loss=CONSISTENT)
    parts = runs.build_parts(config, load_data(config.data))
    batches = parts.batches.epoch(0)
    training.train_step(parts, config, *next(batches), 0.5)
    try:
        torch.cuda.set_sync_debug_mode("error")
        figures = training.train_step(parts, config, *next(batches), 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert figures["loss"].isfinite()
