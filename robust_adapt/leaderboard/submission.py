"""A submission to RobustBench as a folder: weights in the zoo's form, their code, the entry, form and record."""

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_adapt.auto_attack import model_checks
from robust_adapt.checks import check_model, unwrap
from robust_adapt.errors import ConfigError, shown
from robust_adapt.files import write_file
from robust_adapt.leaderboard.benchmarks import BenchmarkRecord
from robust_adapt.leaderboard.boards import DEFAULT
from robust_adapt.models import ORIGINAL_WIDTH, RESNETS, Normalize, weights_hash
from robust_adapt.records import write_json

# RobustBench takes models that answer the same each time, image by image, with gradients that say something
REFUSED = (
    model_checks.RANDOMISED,
    model_checks.BATCH_DEPENDENT,
    model_checks.DYNAMIC,
    model_checks.PROBABILITIES,
    model_checks.ZERO_GRADIENT,
    model_checks.OUTSIDE,
    model_checks.NOT_FINITE,
)
_ZOO = "robustbench.model_zoo.architectures.resnet"
_HEAD = """\"\"\"build() is the `model` of this name in the zoo; it takes images in [0, 1].\"\"\"

from collections import OrderedDict

import torch
from torch import nn
"""
_NORMALIZE = """

class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor({mean}).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor({std}).view(1, -1, 1, 1))

    def forward(self, images):
        return (images - self.mean) / self.std
"""
_FORM = """{draft}# New model: {name}

## Paper
- Title: {title}
- URL: {link}
- Authors: {authors}
- Venue: {venue}

## Leaderboard claim
- Model: {name}
- Architecture: {architecture}
- Dataset: {dataset}
- Threat model: {run.norm}
- eps: {eps}
- Clean accuracy: {clean_acc} %
- Robust accuracy: {autoattack_acc} %
- Additional data: {data}
- Evaluation method: AutoAttack ({run.version}, seed {run.seed}, batch size {run.batch_size}, {run.n} test images of
  {images}, {run.conditions.arithmetic}; pyautoattack {engine}, source sha256 {run.fingerprint[pyautoattack]})
- Findings of AutoAttack's own checks: {findings}
- Checkpoint: {checkpoint}
- Code: {code}
- Weights sha256: {run.fingerprint[weights]}

## Model zoo
- [x] The state dict is `{file}`, for `load_model("{name}", <this folder>, "{dataset}", "{run.norm}")`.
- {builder}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paper:
    """What a submission says of itself. name: the zoo's, such as ``Author2026Title_R18``, of which files are named.

    checkpoint, code: where both are. Raises ``ConfigError`` for another name, and for an empty text.
    """

    name: str
    title: str
    authors: str
    link: str
    architecture: str
    venue: str = "Unpublished"
    checkpoint: str = "attached"
    code: str = "to be added"

    def __post_init__(self) -> None:
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name, re.ASCII) is None:
            raise ConfigError(
                f"Expected `name` of letters, digits, _, - and ., but got {shown(self.name)}; e.g. Author2026Title."
            )
        for name, value in vars(self).items():
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"Expected `{name}` of the submission as a text, but got {shown(value)}; fill it in.")


def submit(
    model: nn.Module,
    record: BenchmarkRecord,
    paper: Paper,
    out: str | Path,
    *,
    source: str | None = None,
    draft: bool = False,
) -> Path:
    """Write a submission into the folder ``out`` and return it.

    record: what ``benchmark`` says of these very weights under the leaderboard's protocol; anything else, and a model
    that RobustBench does not take, is refused, or with ``draft=True`` marked on top of the form. source: Python whose
    ``build()`` gives the model (``model_source`` writes it), kept as ``model.py``. ``load_model(paper.name,
    model_dir=out)`` reads the weights. Raises ``ConfigError``, ``CheckpointError``.
    """
    model, run = unwrap(check_model(model)), record.autoattack
    if weights_hash(model) != run.fingerprint["weights"]:
        raise ConfigError("Expected the model that was evaluated, but its weights differ from the record's.")
    found = [finding.check for finding in run.findings]
    reasons = [f"a model with {check}, which RobustBench does not take" for check in REFUSED if check in found]
    reasons = record.reasons + reasons
    if reasons and not draft:
        raise ConfigError(
            f"Expected an evaluation under the leaderboard's protocol, but got {'; '.join(reasons)}; "
            "evaluate again, or see the folder as a draft (`draft`)."
        )
    entry = _entry(record, paper)
    weights, file = io.BytesIO(), f"{entry['dataset']}/{run.ball.norm}/{paper.name}"
    torch.save({_zoo_key(key): value.detach().cpu() for key, value in model.state_dict().items()}, weights)
    built = "`model.py` builds the model: its `build` is the `model` of the entry in the zoo."
    form = _FORM.format(
        **entry | dataclasses.asdict(paper),
        draft=f"DRAFT, not to be submitted: {'; '.join(reasons)}.\n\n" if reasons else "",
        data="yes" if record.more_data else "no",
        run=run,
        images=record.data,
        engine=run.versions.get("pyautoattack", "of unknown version"),
        findings="; ".join(f"{one.check} ({one.message})" for one in run.findings) or "none",
        file=f"{file}.pt",
        builder=built if source else "The code that builds the model is to be added.",
    )
    out = Path(out)
    write_file(out / f"{file}.pt", weights.getvalue())
    write_json(out / "model_info" / f"{file}.json", entry)
    write_json(out / "evaluation.json", record)
    write_file(out / "form.md", form.encode(errors="surrogateescape"))
    if source is not None:
        write_file(out / "model.py", source.encode())
    return out


def _entry(record: BenchmarkRecord, paper: Paper) -> dict[str, Any]:
    run = record.autoattack
    return {
        "link": paper.link,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": record.more_data,
        "number_forward_passes": 1,
        "dataset": record.place.dataset if record.place else DEFAULT,
        "venue": paper.venue,
        "architecture": paper.architecture,
        "eps": str(run.ball).split()[1],
        "clean_acc": f"{run.clean.accuracy:.2%}"[:-1],
        "reported": f"{run.accuracy:.2%}"[:-1],
        "autoattack_acc": f"{run.accuracy:.2%}"[:-1],
    }


def _zoo_key(key: str) -> str:
    """A name that ``load_model`` turns into ``key``: it cuts 7 letters off names with ``module.`` anywhere in them,
    then 6 off those with ``model.``."""
    key = f"model.{key}" if "model." in key else key
    return f"module.{key}" if "module." in key else key


def model_source(name: str, model: nn.Module) -> str:
    """Python whose ``build()`` gives an untrained model of the same form, for images in [0, 1]; it needs robustbench
    and torch alone.

    name: the architecture that ``build_model`` made the model of, or ``module:function``, which is then imported.
    """
    module, _, function = name.partition(":")
    first, parts, built = getattr(model, "normalize", None), "", "net"
    net: Any = model.model if isinstance(first, Normalize) else model
    imports, made = [f"from {module} import {function}"], [f"net = {function}()"]
    if not function:
        imports, made = _resnet(name, net)
    if isinstance(first, Normalize):
        parts = _NORMALIZE.format(mean=first.mean.flatten().tolist(), std=first.std.flatten().tolist())
        built = "nn.Sequential(OrderedDict(normalize=Normalize(), model=net))"
    body = "\n".join(f"    {line}" for line in [*made, f"return {built}"])
    return "\n".join([_HEAD, *imports]) + f"\n{parts}\n\ndef build():\n{body}\n"


def _resnet(name: str, net: Any) -> tuple[list[str], list[str]]:
    """The imports, and the lines that make ``net``: the zoo's own function, or its class with other first and last
    layers."""
    block, blocks = RESNETS[name]
    width, channels, classes = net.conv1.out_channels, net.conv1.in_channels, net.linear.out_features
    stages = [getattr(net, f"layer{stage}") for stage in range(1, 5)]
    strides = [max(part.stride[0] for part in stage.modules() if isinstance(part, nn.Conv2d)) for stage in stages]
    if (width, channels, classes, strides) == (ORIGINAL_WIDTH, 3, 10, [1, 2, 2, 2]):
        return [f"from {_ZOO} import {name}"], [f"net = {name}()"]
    kind = "PreActResNet" if name.startswith("PreAct") else "ResNet"
    lines = [f"net = {kind}({block}, {list(blocks)}, num_classes={classes})", f"net.in_planes = {width}"]
    lines.append(f"net.conv1 = nn.Conv2d({channels}, {width}, kernel_size=3, padding=1, bias=False)")
    if hasattr(net, "bn1"):
        lines.append(f"net.bn1 = nn.BatchNorm2d({width})")
    for stage, (count, stride) in enumerate(zip(blocks, strides, strict=True)):
        lines.append(f"net.layer{stage + 1} = net._make_layer({block}, {width * 2**stage}, {count}, stride={stride})")
    lines.append(f"net.linear = nn.Linear({net.linear.in_features}, {classes})")
    return [f"from {_ZOO} import {block}, {kind}"], lines
