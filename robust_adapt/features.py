"""Features of any model without a change to its code: ``FeatureTap``."""

import contextlib
import difflib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from robust_adapt.answers import ask, is_compiled, watched
from robust_adapt.doors import check_model, unwrap
from robust_adapt.errors import ConfigError, shown


class _Capture:
    """The hook. It keeps a tensor only while armed; a deep copy or a pickle of it is dead for good."""

    def __init__(self) -> None:
        self.armed = False
        self.calls = 0
        self.tensor: Tensor | None = None

    def arm(self, armed: bool) -> None:
        """Keep what the next forward brings, or no longer."""
        self.armed, self.calls, self.tensor = armed, 0, None

    def before(self, _module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        if self.armed:
            self.calls += 1
            self.tensor = inputs[0] if inputs else named["input"]  # Linear's own name of it

    def after(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.armed:
            self.calls += 1
            self.tensor = output

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Capture":
        return _Capture()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Capture, ()


class FeatureTap:
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
        check_model(model)
        single = layers is None or isinstance(layers, str)
        layers = [layers] if isinstance(layers, str) else layers
        if layers is not None and (not isinstance(layers, Sequence) or not layers):
            raise ConfigError(f"Expected names of modules in `layers`, but got {shown(layers)}; leave it out for none.")
        self.model, self._looked = model, False
        inner = unwrap(model)
        self._single = single
        self._captures: dict[str, _Capture] = {}
        self._handles = []
        if layers is None:
            name, module = _last_linear(inner)
            capture = self._captures[f"input of {name}"] = _Capture()
            self._handles.append(module.register_forward_pre_hook(capture.before, with_kwargs=True))
        else:
            for name, module in [(name, _named(inner, name)) for name in layers]:
                capture = self._captures[name] = _Capture()
                self._handles.append(module.register_forward_hook(capture.after))

    def __call__(self, images: Tensor) -> tuple[Tensor, Any]:
        if not self._handles:
            raise ConfigError("Expected an open FeatureTap, but it was closed; make a new one.")
        for capture in self._captures.values():
            capture.arm(True)
        first, self._looked = not self._looked and not is_compiled(self.model), True
        try:
            with watched(self.model) if first else contextlib.nullcontext():
                logits = ask(self.model, images)
            features = {name: self._taken(name, capture) for name, capture in self._captures.items()}
        finally:
            for capture in self._captures.values():
                capture.arm(False)
        return logits, next(iter(features.values())) if self._single else features

    @staticmethod
    def _taken(name: str, capture: _Capture) -> Tensor:
        if capture.tensor is None:
            raise ConfigError(
                f"Expected features from {name!r}, but nothing was captured; name a layer that the forward runs, "
                "and make the tap before the first call of a compiled model."
            )
        if capture.calls > 1:
            raise ConfigError(
                f"Expected {name!r} once in a forward, but it ran {capture.calls} times; name a layer that runs once."
            )
        return capture.tensor

    @property
    def layers(self) -> tuple[str, ...]:
        """What is captured, by name."""
        return tuple(self._captures)

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def _last_linear(model: nn.Module) -> tuple[str, nn.Module]:
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ConfigError("Expected a model with a Linear layer, but found none; name the feature layer yourself.")
    return found[-1]


def _named(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if isinstance(name, str) and name and name in modules:
        return modules[name]
    nearest = difflib.get_close_matches(str(shown(name)), [key for key in modules if key], n=3, cutoff=0.0)
    raise ConfigError(f"Expected the name of a module, but got {shown(name)}; nearest: {', '.join(nearest)}.")
