"""Features of any model without a change to its code: ``FeatureTap``."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from robust_adapt.answers import ask, is_compiled, watched
from robust_adapt.checks import check_model, unwrap
from robust_adapt.errors import ConfigError, nearest, shown
from robust_adapt.outputs import logits_in


class _Capture:
    """The hook of a layer, which keeps its output (or ``of_input`` its input) while there is a list to keep it in.

    A deep copy or a pickle of it is dead for good.
    """

    def __init__(self, *, of_input: bool = False) -> None:
        self.of_input = of_input
        self.kept: list[Tensor] | None = None

    def keep(self, _module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        if self.kept is not None:
            if self.of_input:
                output = [*inputs, *named.values()][0]  # a Linear has one
            elif isinstance(output, Tensor):
                output = output.clone()  # what comes next may be in place
            self.kept.append(output)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return functools.partial(_Capture, of_input=self.of_input), ()


class FeatureTap(contextlib.AbstractContextManager["FeatureTap"]):
    """``logits, features = tap(images)``: a forward that also returns the features.

    model: any ``nn.Module``, also compiled or inside DDP, as long as the tap is made before its first compiled call.
    layers: dotted names of modules whose outputs are the features; by default the *input* of the last ``Linear``. Where
    dropout stands before that layer, features in training mode are those after dropout: two passes over one image
    differ, and R is > 0 without any attack; name the layer before the dropout.
    One layer gives a tensor, several give a dict by name. ``state_dict`` is untouched, a deep copy of the model
    carries no live hook, ``close()`` (or leaving the ``with`` block) removes the hooks. Outside ``tap(images)`` the
    hooks do nothing. Raises ``ConfigError`` for an unknown layer (nearest names), when nothing was captured, when the
    layer ran more than once in a forward, and when the first forward runs parts that PyTorch does not see.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str] | None = None) -> None:
        inner = unwrap(check_model(model))
        self._single = layers is None or isinstance(layers, str)
        names = [layers] if isinstance(layers, str) else layers
        self.model, self._looked = model, False
        found = _last_linear(inner) if names is None else {name: _named(inner, name) for name in names}
        self._captures = {name: _Capture(of_input=names is None) for name in found}
        self._handles = [
            module.register_forward_hook(self._captures[name].keep, with_kwargs=True) for name, module in found.items()
        ]

    def __call__(self, images: Tensor) -> tuple[Tensor, Any]:
        for capture in self._captures.values():
            capture.kept = []
        first, self._looked = not self._looked and not is_compiled(self.model), True
        try:
            with watched(self.model) if first else contextlib.nullcontext():
                logits = logits_in(ask(self.model, images), training=self.model.training)
            features = {name: _only(name, capture.kept or []) for name, capture in self._captures.items()}
        finally:
            for capture in self._captures.values():
                capture.kept = None
        return logits, next(iter(features.values())) if self._single else features

    @property
    def layers(self) -> tuple[str, ...]:
        """What is captured, by name."""
        return tuple(self._captures)

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __exit__(self, *_: object) -> None:
        self.close()


def _only(name: str, kept: list[Tensor]) -> Tensor:
    if len(kept) != 1:
        raise ConfigError(
            f"Expected {name!r} once in a forward, but it ran {len(kept)} times; name a layer that runs once, and make "
            "the tap, which ends with its `with` block, before the first call of a compiled model."
        )
    return kept[0]


def _last_linear(model: nn.Module) -> dict[str, nn.Module]:
    found = {f"input of {name}": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not found:
        raise ConfigError("Expected a model with a Linear layer, but found none; name the feature layer yourself.")
    return dict([found.popitem()])


def _named(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    hint = nearest(name, modules) or "`model.named_modules()` has them all."
    raise ConfigError(f"Expected the name of a module, but got {shown(name)}; {hint}")
