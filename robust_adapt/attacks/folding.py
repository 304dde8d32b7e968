"""Batch-norm folded into the convolutions before it while a model is attacked: the same logits in fewer passes."""

import contextlib
import copy
import itertools
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robust_adapt.answers import is_compiled
from robust_adapt.random_states import random_fork

# of these libraries a forward goes one way and leaves the weights alone; what a user's class does, no trace can promise
KNOWN = ("torch", "torchvision", "robustbench", "robust_adapt")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class _Pair:
    """A convolution and the batch-norm that alone reads its output. In a ``with`` block the first does the work of
    both, except while a hook could see what is between them, or from when the batch-norm has been in training mode."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        self.convolution, self.norm, self.folded = convolution, norm, False

    @property
    def free(self) -> bool:
        """Whether nobody has put another forward in the place of theirs, such as a composer around this one, and the
        batch-norm still has statistics."""
        own = "forward" in self.convolution.__dict__ or "forward" in self.norm.__dict__
        return not own and self.norm.running_mean is not None

    @torch.no_grad()
    def __enter__(self) -> None:
        norm, mean, variance = self.norm, self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        weight, bias = self.convolution.weight, self.convolution.bias
        both = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, norm.weight, norm.bias)
        self.weight, self.bias, self.moved = *(each.requires_grad_(False) for each in both), False
        self.convolution.__dict__["forward"], norm.__dict__["forward"] = self._convolve, self._normalise

    def __exit__(self, *_: object) -> None:
        del self.weight, self.bias, self.convolution.__dict__["forward"], self.norm.__dict__["forward"]

    def _convolve(self, maps: Tensor) -> Tensor:
        seen = any(getattr(part, hooks) for part in (self.convolution, self.norm) for hooks in _HOOKS)
        self.moved |= self.norm.training  # its statistics
        self.folded = not (seen or self.moved)
        layer = self if self.folded else self.convolution
        result: Tensor = self.convolution._conv_forward(maps, layer.weight, layer.bias)
        return result

    def _normalise(self, maps: Tensor) -> Tensor:
        return maps if self.folded else nn.BatchNorm2d.forward(self.norm, maps)


class Folding:
    """``with folding.of(model):`` eval-mode batch-norm behind a convolution costs nothing; the model leaves as it came.

    Logits and gradients are the same but for rounding; modules, parameters and hooks stay in their places. Folded are
    models all of whose classes are of ``KNOWN``, that torch.fx can trace and that are not compiled: a compiler does the
    same. The pairs are found at the first call, and again where the model has got other modules. In the block there is
    a second copy of their weights.
    """

    def __init__(self) -> None:
        self._modules: list[nn.Module] = []
        self._pairs: list[_Pair] = []

    @contextlib.contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        modules, compiled = list(model.modules()), is_compiled(model)
        if modules != self._modules and not compiled:
            self._modules, self._pairs = modules, _pairs_of(model)
        with contextlib.ExitStack() as stack:
            for pair in self._pairs if not compiled else []:
                if pair.free:
                    stack.enter_context(pair)
            yield


def _pairs_of(model: nn.Module) -> list[_Pair]:
    """Convolution and batch-norm, each run once in a forward, by one parent, outside which nobody meets what is
    between them."""
    parts = list(model.modules())
    if not all(type(part).__module__.partition(".")[0] in KNOWN and "forward" not in vars(part) for part in parts):
        return []
    tensors = itertools.chain(model.parameters(), model.buffers())
    try:
        twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()  # of its structure alone
        for part in twin.modules():
            part._forward_hooks.clear()
            part._forward_pre_hooks.clear()
        with random_fork(None):  # a model may draw
            nodes = fx.Tracer().trace(twin).nodes
    except Exception:  # what cannot be copied or traced fails in as many ways as there are models
        return []
    names = {node: str(node.target) for node in nodes if node.op == "call_module"}
    runs, modules, found = Counter(names.values()), dict(model.named_modules()), []
    for first, second in ((node, user) for node in names for user in node.users if user in names):
        convolution, norm = modules[names[first]], modules[names[second]]
        plain = type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None
        alone = (
            len(first.users) == runs[names[first]] == runs[names[second]] == len(first.args) == len(second.args) == 1
        )
        if plain and alone and names[first].rpartition(".")[0] == names[second].rpartition(".")[0]:
            found.append(_Pair(convolution, norm))
    return found
