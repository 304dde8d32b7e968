"""Files of ``torch.save``, read without running any code from them, and the sentence for every other file."""

import hashlib
import io
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from robust_adapt.errors import CheckpointError

ANEW = "delete it, then fetch or write it anew"
_SAVED = "save model.state_dict() with torch.save where the model is, and give that file"
_PATH = "{path}"  # in the commands below: the name of the file
_TRUSTED = 'only if you trust it, `python -c "%s"` writes its tensors to weights.pt, for use in its place'
_SAFETENSORS = _TRUSTED % "import torch, safetensors.torch as s; torch.save(s.load_file({path}), 'weights.pt')"
_SCRIPT = _TRUSTED % "import torch; torch.save(torch.jit.load({path}, map_location='cpu').state_dict(), 'weights.pt')"
_TENSORS = _TRUSTED % (  # state dicts and tensors; all else is left out
    "import torch; f = lambda c: f(c.state_dict()) if hasattr(c, 'state_dict') else "
    "{str(k): f(v) for k, v in c.items()} if hasattr(c, 'items') else torch.as_tensor(c) if hasattr(c, '__array__') "
    "and getattr(c.dtype, 'kind', 'f') in 'biuf' else None; torch.save(f(%s), 'weights.pt')"
)
CONVERT = _TENSORS % "torch.load({path}, 'cpu', weights_only=False)"  # for weights that are in objects of Python
_PICKLED = _TENSORS % "__import__('pickle').loads(__import__('pathlib').Path({path}).read_bytes())"
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch.save began before torch 1.6
_OTHERS = (  # (how a file begins, its kind, the likely fix)
    (rb"\Z", "an empty file", ANEW),
    (rb"\s*<", "an HTML page, which a download brings where a quota is used up or a login is needed", ANEW),
    (rb".{8}\{", "a file of safetensors", _SAFETENSORS),
    (rb"PK", "a truncated file", ANEW),
    (rb"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull` where it lies"),
    (rb"\x1f\x8b", "a compressed file", "unpack it with gunzip or tar, and give the file inside"),
    (rb".{257}ustar", "a tar archive", "unpack it with tar, and give the file inside"),
    (rb"\x89HDF", "a file of HDF5", _SAVED),
    (rb"\x08", "a file of ONNX", _SAVED),
    (rb"\x80", "a pickle that torch.save has not written", _PICKLED),
)
_UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed")
_CONTAINER = re.compile(r"Can only (SETITEM|append|extend).* got <class '(\S+)'>")
_NAMED = re.compile(r"(?:GLOBAL |<class ')([\w.]+)")
_MADE = {"SETITEM": OrderedDict, "append": list, "extend": list}


class StandIn:
    """In place of an object of a class that torch does not know: no code of it runs, and nothing of it is kept."""

    made: type = object

    def __new__(cls, *_: Any) -> Any:
        return StandIn if cls.made is type else cls.made() if cls.made is not object else object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:  # newer versions of torch say so by themselves
        raise UnpicklingError(f"Can only SETITEM for dict, but got {type(self)}")


def read_tensors(path: Path, payload: bytes | None = None, *, objects: bool = False) -> Any:
    """What ``torch.save`` wrote to a file (payload: its bytes, where they are at hand), on the CPU.

    Tensors, numbers, texts and their containers; with ``objects`` any other object comes as a ``StandIn``. No code of
    the file runs. Raises ``CheckpointError`` for a file that is damaged, of another kind, or has other objects in it.
    """
    cause = None
    try:
        with open(path, "rb") if payload is None else io.BytesIO(payload) as file:
            found = _other_kind(file)
            if not found:
                return _load(file, objects=objects)
    except OSError as error:
        raise CheckpointError(f"Expected a file of tensors at {path}, but got: {error}; {hint(path)}.") from error
    except Exception as error:  # torch raises half a dozen kinds for a damaged or hostile file
        named, cause = _NAMED.search(str(error)), error
        found = f"one that is truncated or damaged ({type(error).__name__}); {ANEW}"
        if isinstance(error, UnpicklingError) and (named or _is_whole(path, str(error))):
            what = f"one with an object of Python ({named[1]})" if named else "one that is not of tensors alone"
            found = f"{what}, which can run code while it is read; {CONVERT}"
    raise CheckpointError(f"Expected a file of tensors at {path}, but got {of_file(found, path)}.") from cause


def _is_whole(path: Path, said: str) -> bool:
    """Whether torch came to the objects of a file: a zip file, or with the source of modules, before torch 1.6."""
    return "persistent_load" in said or zipfile.is_zipfile(path)


def of_file(text: str, path: Path) -> str:
    """A sentence with the commands in it filled in for a file."""
    return text.replace(_PATH, repr(str(path)))


def tensors_hash(shape: Sequence[int], tensors: Iterable[Tensor]) -> str:
    """sha256 over a shape and the values of tensors in turn, of which no more than one is held at once."""
    digest = hashlib.sha256(f"{tuple(shape)}".encode())
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor of any type as they lie in memory."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def hint(path: object) -> str:
    """The likely fix where nothing is at ``path``."""
    return "download it, then give the file" if re.match(r"\w{2,}:/", str(path)) else "look at the path"


def _load(file: BinaryIO, *, objects: bool) -> Any:
    """torch names one unknown class a time; each gets a stand-in, for this call alone, until the file is read."""
    stand_ins: dict[str, type[StandIn]] = {}
    while True:
        file.seek(0)
        known = torch.serialization.safe_globals([StandIn, *((each, name) for name, each in stand_ins.items())])
        try:
            with warnings.catch_warnings(), known:
                warnings.simplefilter("ignore")  # about the file: the errors below say it
                return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            name, made = _needed(str(error))
            if not objects or name is None or (name in stand_ins and stand_ins[name].made is made):
                raise
            module, _, short = name.rpartition(".")
            stand_ins[name] = type(short, (StandIn,), {"__module__": module, "made": made})


def _needed(text: str) -> tuple[str | None, type]:
    """The class that torch has no stand-in for, or not one of the right kind, and what that has to be."""
    if unknown := _UNKNOWN.search(text):
        name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
        return name, type if name == "builtins.getattr" else object  # a class inside a class
    container = _CONTAINER.search(text)
    return (container[2], _MADE[container[1]]) if container else (None, object)


def _other_kind(file: BinaryIO) -> str | None:
    """What kind of file this is and the likely fix, where ``torch.save`` did not write it to its end; else None.

    torch itself does not look at the check sums of a zip file. Before torch 1.6 there were none.
    """
    start = file.read(512)
    if not zipfile.is_zipfile(file):
        if start and _OLD.startswith(start[: len(_OLD)]):
            return None
        found = (f"{kind}; {fix}" for mark, kind, fix in _OTHERS if re.match(mark, start, re.DOTALL))
        return next(found, f"a file of another kind (it begins with {start[:8]!r}); {_SAVED}")
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            whole = archive.testzip() is None
    except Exception:  # a damaged header makes zipfile raise a different error per field
        names, whole = set(), False
    if not whole:
        return f"a damaged file, whose check sums differ; {ANEW}"
    if "constants.pkl" in names:
        return f"a model of TorchScript; {_SCRIPT}"
    return None if "data.pkl" in names else f"a zip file that torch.save has not written; {_SAVED}"
