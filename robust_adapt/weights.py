"""The weights in any training script's checkpoint, put into the model that is asked for.

Where they lie in the file, and behind which prefix, is told by the names that the model wants, not by a list.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.archives import CONVERT, StandIn, of_file, read_tensors
from robust_adapt.config import ModelConfig
from robust_adapt.errors import CheckpointError, ConfigError, first_line, shown, unknown_name
from robust_adapt.models import RESNETS, build_model, normalize, resize

_COPY = re.compile(r"(?:\b|_)(?:ema|swa|avg|averaged?|teacher|attacker)(?:\b|_)")
_DEVIATION = {"mean": "std", "new_mean": "new_std", "mu": "sigma"}  # what layers that normalise call their two buffers
_STATISTICS = {*_DEVIATION, *_DEVIATION.values()}
_DEPTH, _LISTED, _SHOWN, _LONGEST = 4, 2, 6, 60
_COUNTED = "num_batches_tracked"  # torch before 0.4.1 did not keep it, and torch does not ask for it


@dataclass(frozen=True)
class FileModel:
    """A model with the weights of a file; normalised: by mean and deviation, carried or given; picked: which of several
    weights were taken and how many tensors left, in words that follow a name; note: these words and those on the
    normalisation."""

    model: nn.Module
    normalised: bool
    picked: str
    note: str


@dataclass(frozen=True)
class _Set:
    """The tensors of one dict of a file that share a prefix, named without it, and the dict's other tensors."""

    place: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    beside: dict[str, Tensor]

    def __str__(self) -> str:
        return ".".join((*self.place, self.prefix)).strip(".") or "the file itself"


def model_of_file(
    path: Path, settings: ModelConfig, *, num_classes: int, channels: int, size: int, of_run: bool = False
) -> FileModel:
    """The architecture of ``settings`` with the weights in a checkpoint file, which may be any script's.

    Its normalisation is the file's own, else that of ``settings.mean`` and ``settings.std``, else there is none. Of
    several weights that fit, those at ``settings.pick`` are taken, else the ones that are no average or other copy.
    of_run: the settings are those of the run folder around the file. Raises ``CheckpointError``, ``ConfigError``.
    """
    side = settings.size or size
    model = build_model(settings.name, num_classes=num_classes, channels=channels, width=settings.width, size=side)
    content = read_tensors(path, objects=True)
    wanted = model.state_dict()
    fits = [each for each in _sets(content, wanted) if _put(model, each.tensors) is None]
    if not fits:
        cure = _misfit(path, content, model, settings, (num_classes, channels, side))
        raise CheckpointError(cure + (" That is for a copy outside of its run folder." if of_run else ""))
    taken = min(_at(None if of_run else settings.pick, fits), key=lambda each: bool(_COPY.search(str(each))))
    _put(model, taken.tensors)
    carried = _normalisation(taken.beside, channels)
    if carried and not of_run and (settings.mean is not None or not settings.normalize):
        raise ConfigError(
            f"Expected no word on normalisation with {path}, whose weights carry their own ({carried[0]}), but got "
            "`model.mean` or `model.no-normalize`; leave it out."
        )
    # one value for all channels becomes one each, as a run that goes on from them is built again
    mean, std = [taken.beside[name].flatten().expand(channels).tolist() for name in carried] or (
        settings.mean,
        settings.std,
    )
    picked = note = _picked(taken, fits, carried)
    if mean is None or std is None:
        note += ", without normalisation"
    else:
        model = normalize(model, mean=mean, std=std)
        if not carried:
            note += f", normalised by {' '.join(map('{:g}'.format, mean))} and {' '.join(map('{:g}'.format, std))}"
    return FileModel(model if side == size else resize(model, side), mean is not None, picked, note)


def _at(pick: str | None, fits: Sequence[_Set]) -> list[_Set]:
    """Those that lie at a place, or anywhere in it. Raises ``ConfigError`` where there are none."""
    found = [each for each in fits if pick is None or f"{each}.".startswith(f"{pick}.")]
    if not found:
        raise ConfigError(unknown_name("place of weights that fit (`pick`)", pick, map(str, fits)))
    return found


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from fitting, in a few words; empty where names and shapes are the same."""
    kinds = {
        "missing": [shown(name) for name in wanted if name not in given and not name.endswith(_COUNTED)],
        "unknown": [shown(name) for name in given if name not in wanted],
        "of another shape": [
            f"{shown(name)} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    return ", ".join(
        f"{len(each)} {kind} ({', '.join(each[:_LISTED])}{', ...' if each[_LISTED:] else ''})"
        for kind, each in kinds.items()
        if each
    )


def _sets(content: Any, wanted: Mapping[str, Tensor]) -> Iterator[_Set]:
    """The sets of tensors in a file that have names of the model, for each dict those with the most of them.

    A set is what lies behind a prefix; a layer that normalises is beside it, where the model has none.
    """
    for place, found in _dicts(content):
        tensors = {name.replace("_orig_mod.", ""): value for name, value in found.items()}
        ends = ((name, at) for name in tensors for at in (0, *(dot.end() for dot in re.finditer(r"\.", name))))
        counts = Counter(name[:at] for name, at in ends if name[at:] in wanted)
        for prefix in (each for each, count in counts.items() if count == max(counts.values())):
            behind = {name: name[len(prefix) :] for name in tensors if name.startswith(prefix)}
            inside = {name: own for name, own in behind.items() if own in wanted or _last(name) not in _STATISTICS}
            beside = {name: value for name, value in tensors.items() if name not in inside}
            yield _Set(place, prefix, {own: tensors[name] for name, own in inside.items()}, beside)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _dicts(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict of tensors in a file, outer ones first, and the keys that lead to it."""
    content = dict(enumerate(content)) if type(content) in (list, tuple) else content
    if isinstance(content, dict):
        if tensors := {str(name): value for name, value in content.items() if isinstance(value, Tensor)}:
            yield place, tensors
        for name, value in content.items() if len(place) < _DEPTH else ():
            yield from _dicts(value, (*place, str(name)))


def _put(model: nn.Module, tensors: dict[str, Tensor]) -> Exception | None:
    try:
        model.load_state_dict(tensors)
    except Exception as error:  # a RuntimeError, unless a model of somebody's reads its weights itself
        return error
    return None


def _normalisation(beside: dict[str, Tensor], channels: int) -> list[str]:
    """The names of a mean and its deviation among tensors; empty where there are none."""
    for name in sorted((each for each in beside if _last(each) in _DEVIATION), key=len):
        other = name.removesuffix(_last(name)) + _DEVIATION[_last(name)]
        if other in beside and beside[name].numel() == beside[other].numel() in (1, channels):
            return [name, other]
    return []


def _picked(taken: _Set, fits: Sequence[_Set], carried: Sequence[str]) -> str:
    """Which of the weights that fit were taken, and how many other tensors lie beside them."""
    others = [each for each in fits if not _equal(each.tensors, taken.tensors)]
    copies = tuple(each.prefix for each in fits if each.place == taken.place and each.prefix)
    lasts = {*map(_last, carried)}
    left = [name for name in taken.beside if not name.startswith(copies) and _last(name) not in lasts]
    several = f", weights of {taken}, where {' and '.join(map(str, others[:_LISTED]))} fit too" if others else ""
    return several + (f", without {len(left)} other tensors ({shown(left[0])})" if left else "")


def _equal(ones: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return ones.keys() == others.keys() and all(
        ones[name].dtype == others[name].dtype and torch.equal(ones[name], others[name]) for name in ones
    )


def _misfit(path: Path, content: Any, model: nn.Module, settings: ModelConfig, data: tuple[int, int, int]) -> str:
    """What a file holds instead of weights of the model, and the cure of that cause."""
    wanted, (classes, channels, size) = model.state_dict(), data
    sets = list(_sets(content, wanted))
    objects = not sets and _holds_objects(content)
    if objects or next(_dicts(content), None) is None:
        fix = of_file(CONVERT, path) if objects else "save model.state_dict() with torch.save, and give that file"
        return f"Expected a state dict in {path}, but got {_contents(content)}; {fix}."
    start = f"Expected weights of {settings.title} for {classes} classes in {path}, but "
    if known := _known(content, size):
        found, held_classes, held_channels = known
        flags = [f"--model.name {found.name}"] if found.name != settings.name else []
        flags += [f"--model.width {found.width}"] if found.width != settings.width else []
        fixes = [f"say `{' '.join(flags)}`"] if flags else []
        fixes += [f"give data of {held_classes} classes"] if held_classes != classes else []
        fixes += [f"give data of {held_channels} channels"] if held_channels != channels else []
        return f"{start}they are those of {found.title} for {held_classes} classes; {' and '.join(fixes)}."
    held = [each.tensors for each in sets] or [tensors for _, tensors in _dicts(content)]
    best = max(held, key=lambda tensors: len(tensors.keys() & wanted.keys()))
    why = differences(wanted, best) or first_line(_put(model, best) or ValueError("nothing"))
    return (
        f"{start}they do not fit: {why}; give the architecture that they are of with `--model.name`, your own as "
        "module:function."
    )


def _known(content: Any, size: int) -> tuple[ModelConfig, int, int] | None:
    """Which architecture of ours a file has the weights of, with its number of classes and channels."""
    for found in _sets(content, {"linear.weight": torch.empty(0)}):
        shapes = {name: tuple(each.shape) for name, each in found.tensors.items() if not name.endswith(_COUNTED)}
        first, last = shapes.get("conv1.weight", ()), shapes["linear.weight"]
        for name in RESNETS if len(first) == 4 and len(last) == 2 and last[0] > 1 else ():
            with torch.device("meta"):
                net = build_model(name, num_classes=last[0], channels=first[1], width=first[0], size=size)
            if shapes == {
                each: tuple(value.shape) for each, value in net.state_dict().items() if not each.endswith(_COUNTED)
            }:
                return ModelConfig(name=name, width=first[0]), last[0], first[1]
    return None


def _holds_objects(content: Any) -> bool:
    values = content.values() if isinstance(content, dict) else ()
    return isinstance(content, StandIn) or any(map(_holds_objects, values))


def _contents(content: Any) -> str:
    """A dict by its keys, or by an object in it, an object by its class, anything else by its type."""
    kind = type(content)
    if isinstance(content, StandIn):
        return f"{kind.__module__}.{kind.__name__}"[:_LONGEST]
    if not isinstance(content, dict):
        return kind.__name__
    if found := next((each for each in content.values() if isinstance(each, StandIn)), None):
        return f"a dict with an object of Python ({_contents(found)})"
    names, more = ", ".join(map(shown, list(content)[:_SHOWN])), len(content) - _SHOWN
    return f"a dict of {names}" + (f" and {more} more" if more > 0 else "")
