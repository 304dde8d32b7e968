"""The sentences that several public functions share for a value they cannot take: expected, got, likely fix."""

import math
import operator
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from robust_adapt.errors import ConfigError, DataError, shown, unknown_name

LIMIT = 2**31
SEEDS = 2**32
HUGE = 1e300  # of a number that can be computed with


def check_number(
    name: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    inside: bool = False,
    example: object = 1,
) -> None:
    """Raise ``ConfigError`` unless ``value`` is a finite number in [low, high] (``inside``: without the ends)."""
    if abs(value) < HUGE and (low < value < high if inside else low <= value <= high):
        return
    ends = f" in ({low:g}, {high:g})" if inside else f" in [{low:g}, {high:g}]"
    if high == math.inf:
        ends = "" if low == -math.inf else f" {'>' if inside else '>='} {low:g}"
    raise ConfigError(
        f"Expected `{name}` as a finite number{ends}, but got {shown(value)}; give one such as {example}."
    )


def check_whole(name: str, value: int, *, low: int = 1, high: int = LIMIT, example: int = 1) -> None:
    """Raise ``ConfigError`` unless ``value``, an int, is in [low, high)."""
    if low <= operator.index(value) < high:
        return
    end = {LIMIT: "2**31", SEEDS: "2**32"}.get(high, high)
    span = f">= {low}" if high == LIMIT and value < high else f"in [{low}, {end})"
    raise ConfigError(
        f"Expected `{name}` as a whole number {span}, but got {shown(value)}; give one such as {max(low, example)}."
    )


def check_seed(value: int) -> None:
    """Raise ``ConfigError`` unless ``value``, an int, is in [0, 2**32): what every generator here takes."""
    check_whole("seed", value, low=0, high=SEEDS, example=0)


def check_known(kind: str, value: object, known: Iterable[str]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of the known names."""
    known = list(known)
    if value not in known:
        raise ConfigError(unknown_name(kind, value, known))


def check_model(value: Any, name: str = "model") -> Any:
    """The module that one process may ask by itself: ``value``, or what is inside its DDP or ``DataParallel``.

    DDP's own forward waits for the other processes. Raises ``ConfigError`` unless ``value`` is a ``torch.nn.Module``.
    """
    from torch import nn

    if not isinstance(value, nn.Module):
        raise ConfigError(
            f"Expected `{name}` as a torch.nn.Module, but got {shown(value)}; load or make it first: "
            "load_run(folder).model, load_zoo_model(name), build_model(name)."
        )
    return next(inner for inner in _wrapped(value) if not any(map(_is_parallel, _wrapped(inner))))


def check_state(model: Any) -> None:
    """Raise ``ConfigError`` unless a model's state dict holds tensors alone, as its weights in a file do."""
    import torch

    for name, value in unwrap(model).state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ConfigError(
                f"Expected tensors alone in the model's state dict, but got {shown(name)}, a {type(value).__name__}; "
                "return a tensor from get_extra_state(), or train what is not quantised yet."
            )


def unwrap(model: Any) -> Any:
    """The bare module inside ``torch.compile``, Fabric, DDP and ``DataParallel``: the names of its state dict are the
    model's own."""
    *_, inner = _wrapped(model)
    return inner


def _wrapped(model: Any) -> Iterator[Any]:
    """The model, then what is inside each wrapper in turn."""
    from torch import nn

    while model is not None:
        yield model
        held = {**model.__dict__, **dict(model.named_children())}
        names = ("module",) if _is_parallel(model) else ("_orig_mod", "_forward_module")
        model = next((held[name] for name in names if isinstance(held.get(name), nn.Module)), None)


def _is_parallel(model: Any) -> bool:
    from torch import nn

    return isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)


def check_tensor(name: str, value: Any, *, dims: int | None = None) -> None:
    """Raise ``DataError`` unless ``value`` is a dense float tensor with values (``dims``: of so many dimensions)."""
    if not value.is_floating_point():
        raise DataError(
            f"Expected `{name}` as a float tensor, but got {value.dtype}; use torch.as_tensor(...).float()."
        )
    check_dense(name, value)
    if dims is not None and value.ndim != dims:
        raise DataError(f"Expected `{name}` of {dims} dimensions, but got the shape {tuple(value.shape)}; reshape it.")


def check_dense(name: str, value: Any) -> None:
    """Raise ``DataError`` for a tensor without values (the meta device) or of a sparse layout."""
    import torch

    if value.is_meta or value.layout != torch.strided:
        kind = "one on the meta device" if value.is_meta else str(value.layout)
        raise DataError(f"Expected `{name}` as a dense tensor with values, but got {kind}; load or densify it first.")


def device_errors() -> tuple[type[Exception], ...]:
    """What a device raises however well model and images fit: out of memory, or (in newer versions of torch) broken."""
    import torch

    return torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError)


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of an annotation such as ``list[str]`` or ``float | None``; files and flags carry no types."""
    inner, origin = typing.get_args(kind), typing.get_origin(kind)
    if isinstance(kind, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (list, tuple):
        return isinstance(value, origin) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if kind is Any:
        return True
    if kind is int or issubclass(kind, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)
