"""A model of ours as a few lines of Python that need robustbench and torch alone: what a zoo keeps beside weights."""

from torch import nn

from robust_adapt.models import ORIGINAL_WIDTH, RESNETS, Normalize

_ZOO = "robustbench.model_zoo.architectures.resnet"
_NORMALIZE = """

class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor({mean}).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor({std}).view(1, -1, 1, 1))

    def forward(self, images):
        return (images - self.mean) / self.std
"""


def model_source(name: str, model: nn.Module) -> str:
    """Python whose ``build()`` gives an untrained model of the same form, for images in [0, 1].

    name: the architecture that ``build_model`` made the model of, or ``module:function``, which is then imported.
    """
    first = getattr(model, "normalize", None)
    net = model.model if isinstance(first, Normalize) else model
    imports, made = _called(name) if ":" in name else _resnet(name, net)
    heads, parts, built = ["from torch import nn"], "", "net"
    if isinstance(first, Normalize):
        heads = ["from collections import OrderedDict", "", "import torch", "from torch import nn"]
        parts = _NORMALIZE.format(mean=first.mean.flatten().tolist(), std=first.std.flatten().tolist())
        built = "nn.Sequential(OrderedDict(normalize=Normalize(), model=net))"
    lines = [
        '"""build() is the `model` of this name in the zoo; it takes images in [0, 1]."""',
        "",
        *(heads if "nn." in "".join(made) + built else []),
        *imports,
    ]
    body = "\n".join(f"    {line}" for line in [*made, f"return {built}"])
    return "\n".join(lines) + f"\n{parts}\n\ndef build():\n{body}\n"


def _called(name: str) -> tuple[list[str], list[str]]:
    module, _, function = name.partition(":")
    return [f"from {module} import {function}"], [f"net = {function}()"]


def _resnet(name: str, net: nn.Module) -> tuple[list[str], list[str]]:
    """The imports, and the lines that make ``net``: the zoo's own function, or its class with other first and last
    layers."""
    block, blocks = RESNETS[name]
    width, channels, classes = net.conv1.out_channels, net.conv1.in_channels, net.linear.out_features
    strides = [_stride(getattr(net, f"layer{stage}")) for stage in range(1, 5)]
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


def _stride(stage: nn.Module) -> int:
    return max(layer.stride[0] for layer in stage.modules() if isinstance(layer, nn.Conv2d))
