"""The fast form of a model answers as the model does, leaves it alone, and never passes for exact."""

import itertools

import pytest
import torch
from forked import PROCESSES
from keywords import autoattack
from torch import nn

from robust_adapt.arithmetic import exact_arithmetic, fast_arithmetic, fast_copy
from robust_adapt.ball import Ball
from robust_adapt.data import Split
from robust_adapt.errors import CheckpointError
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.leaderboard import place
from robust_adapt.models import build_model

QUICK = {"eps": 0.02, "version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}


class Branches(nn.Module):
    """Cannot be traced: the way depends on the values."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        maps = self.norm(images)
        return (maps if maps.sum() > 0 else -maps).mean((2, 3))


def kinds(model):
    return {type(module) for module in model.modules()}


def test_batch_norm_is_folded_and_the_answer_stays():
    torch.manual_seed(0)
    model, images = build_model("ResNet18", width=4), torch.rand(4, 3, 32, 32)
    model.train()(images)  # running statistics of their own
    model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fast = fast_copy(model, images)
    with torch.no_grad():
        assert (fast(images) - model(images)).abs().max() < 1e-4 * model(images).std()
    assert nn.BatchNorm2d not in kinds(fast) and nn.BatchNorm2d in kinds(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert next(fast.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_cannot_be_traced_keeps_its_batch_norm():
    images = torch.rand(4, 3, 8, 8)
    model = Branches().eval()
    fast = fast_copy(model, images)
    assert nn.BatchNorm2d in kinds(fast) and torch.equal(fast(images), model(images))


@pytest.mark.parametrize("arithmetic", [exact_arithmetic, fast_arithmetic])
def test_arithmetic_is_put_back(arithmetic):
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    with pytest.raises(RuntimeError, match="^stop$"), arithmetic():
        assert backends.cudnn.allow_tf32 == (arithmetic is fast_arithmetic)
        raise RuntimeError("stop")
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark) == before


def get(backend, operation):
    return torch._C._get_fp32_precision_getter(backend, operation)


def old_or_error(read):
    try:
        return read()
    except RuntimeError:
        return "mixed"


def settings():
    """All that torch says of its arithmetic, in both interfaces."""
    backends = torch.backends
    operations = itertools.product(("cuda", "mkldnn"), ("all", "matmul", "conv", "rnn"))
    new = {key: get(*key) for key in (("generic", "all"), *operations)}
    old = [lambda: backends.cuda.matmul.allow_tf32, lambda: backends.cudnn.allow_tf32]
    old = [old_or_error(read) for read in (*old, torch.get_float32_matmul_precision)]
    return new, old, backends.cudnn.benchmark, backends.cudnn.deterministic


# What a user may have written before, in either interface.
SETTINGS = {
    "nothing": "pass",
    "old, all": "b.cuda.matmul.allow_tf32 = b.cudnn.allow_tf32 = True",
    "high": "torch.set_float32_matmul_precision('high')",
    "generic bf16": "b.fp32_precision = 'bf16'",
    "matmul": "b.cuda.matmul.fp32_precision = 'tf32'",
    "convolution": "b.cudnn.conv.fp32_precision = 'ieee'",
    "onednn flags": "b.mkldnn.set_flags(_fp32_precision='bf16')",
    "both": "b.cuda.matmul.allow_tf32 = True; b.cudnn.conv.fp32_precision = 'ieee'; b.fp32_precision = 'tf32'",
}
OWN = {  # settings of oneDNN that follow none above them
    "high": {"matmul"},
    "onednn flags": {"matmul", "conv", "rnn"},
}


def arithmetic_after(name):
    exec(SETTINGS[name], {"torch": torch, "b": torch.backends})
    before = settings()
    for arithmetic, fast in ((exact_arithmetic, False), (fast_arithmetic, True), (exact_arithmetic, False)):
        with arithmetic():
            new, old, *_ = settings()
            assert old == [fast, fast, "high" if fast else "highest"], old
            assert [new["cuda", each] for each in ("matmul", "conv", "rnn")] == 3 * ["tf32" if fast else "ieee"], new
            assert [new["mkldnn", each] for each in ("matmul", "conv", "rnn")] == 3 * ["ieee"], new
        assert settings() == before, (settings(), before)
    follows = {each: get("mkldnn", each) for each in ("matmul", "conv", "rnn")}
    torch.backends.fp32_precision = "ieee" if torch.backends.fp32_precision != "ieee" else "tf32"
    assert {each for each, value in follows.items() if get("mkldnn", each) == value} == OWN.get(name, set())


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="since torch 2.9")
@pytest.mark.parametrize("name", SETTINGS)
def test_arithmetic_is_put_back_whichever_interface_set_it(name):
    """In a process of its own: torch cannot go back to the settings that it begins with."""
    process = PROCESSES.Process(target=arithmetic_after, args=(name,))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="since torch 2.9")
def test_an_exact_evaluation_does_not_see_bf16_of_a_cpu(small_net, images):
    """What the CPU would do with it depends on the CPU; that it is off does not."""
    seen = []
    small_net.register_forward_hook(lambda *_: seen.append((get("mkldnn", "matmul"), get("mkldnn", "conv"))))
    labels = torch.zeros(6, dtype=torch.long)
    torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        robust_flags(small_net, Split((images * 255).byte(), labels), Row("fgsm"), Ball("Linf", 0.1))
        assert set(seen) == {("ieee", "ieee")}
        assert (get("mkldnn", "matmul"), get("mkldnn", "conv")) == ("bf16", "bf16")
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = "none"


@pytest.mark.parametrize("arithmetic", [exact_arithmetic, fast_arithmetic])
def test_arithmetic_before_torch_2_9(arithmetic, monkeypatch):
    monkeypatch.delattr(torch._C, "_get_fp32_precision_getter", raising=False)
    monkeypatch.delattr(torch._C, "_set_fp32_precision_setter", raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with arithmetic():
        fast = arithmetic is fast_arithmetic
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (fast, fast)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_fast_record_is_marked_and_its_state_is_another(small_net, tmp_path):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = small_net(images).argmax(1)
    record = autoattack(small_net, images, labels, fast=True, state_dir=tmp_path, **QUICK)
    assert not record.exact
    assert "fast arithmetic" in place(record.accuracy, record.conditions).reasons
    with pytest.raises(CheckpointError, match="^Expected the state of this run in .*, but it belongs to a run with"):
        autoattack(small_net, images, labels, state_dir=tmp_path, **QUICK)
    assert nn.BatchNorm2d in kinds(small_net)


@pytest.mark.slow
def test_compiled_it_answers_the_same(small_net):
    images = torch.rand(6, 3, 8, 8)
    fast = fast_copy(small_net, images, compiled=True)
    for n in (6, 5, 1):
        torch.testing.assert_close(fast(images[:n]), small_net(images[:n]), rtol=1e-4, atol=1e-5)
