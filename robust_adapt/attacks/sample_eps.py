"""An eps a sample in the place where torchattacks computes with one number."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class SampleEps:
    """Sizes that behave like one number beside a tensor: each of them meets its own sample.

    values: ``(N,)``, or one for all. Minus, times or over a number they are sizes again; with a tensor ``(N, ...)``
    they are a tensor of its type and shape. What torch does with a number it does with them, to the bit where the
    values are equal; ``Tensor.uniform_`` too, from which torchattacks draws its random starts.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.float() if values.device.type == "mps" else values.double()  # as exact as Python's numbers

    def beside(self, other: Tensor) -> Tensor:
        """The sizes as ``(N, 1, ...)`` in the type, on the device and with the dimensions of ``other``."""
        return self.values.to(other).view(-1, *[1] * (other.ndim - 1))

    def __neg__(self) -> "SampleEps":
        return SampleEps(-self.values)

    def __mul__(self, other: Any) -> Any:
        return other * self.beside(other) if isinstance(other, Tensor) else SampleEps(self.values * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        # torch divides a number by a tensor in this way
        return self * other.reciprocal() if isinstance(other, Tensor) else SampleEps(self.values / other)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func`` with tensors in place of the sizes."""
        kwargs = kwargs or {}
        other = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        args = tuple(each.beside(other) if isinstance(each, cls) else each for each in args)
        kwargs = {key: each.beside(other) if isinstance(each, cls) else each for key, each in kwargs.items()}
        if func is Tensor.uniform_:  # takes numbers only
            draws, low, high = args
            return torch.addcmul(low, draws.uniform_(), high - low)
        return func(*args, **kwargs)
