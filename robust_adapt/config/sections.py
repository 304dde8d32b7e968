"""The sections of a run's config: frozen dataclasses, a sentence under each field, checks and nothing else."""

import dataclasses
from typing import Annotated, Literal

from robust_adapt.ball import Ball, Epsilon
from robust_adapt.checks import check_known
from robust_adapt.config.fields import LARGEST, POSITIVE, SEED, SHARE, SIDE, Range, Section
from robust_adapt.epsilon import RULES
from robust_adapt.errors import ConfigError, shown

_WEIGHT = Range(lambda value: value >= 0, ">= 0, a weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    name: str = "cifar10"
    """`cifar10`, `cifar100`, `digits` (embedded), `folder:PATH` with train/CLASS/* and test/CLASS/*. Test sets:
    `cifar10.1`, and, read from disk a batch at a time, `imagenet:PATH` with val/WNID/* and `disk:PATH` with
    test/CLASS/*."""
    root: str = "data"
    """Where torchvision's data sets are kept."""
    offline: bool = False
    """Never download."""
    validation: Annotated[int | None, POSITIVE] = None
    """Images held out of the training split, the same number of each class; every choice is made on them. By default
    1000, or a tenth of the training images where that is less."""
    seed: Annotated[int, SEED] = 0
    """Seed of the held-out split."""
    flip: bool | None = None
    """Random horizontal flips in training; by default what suits the data set."""
    crop: Annotated[int | None, Range(lambda pixels: pixels >= 0, ">= 0 pixels")] = None
    """Random crops in training out of images padded by this many pixels; by default what suits the data set."""
    size: Annotated[int | None, POSITIVE, SIDE] = None
    """Resize the images of a folder: the short side to this many pixels, then the square in the middle; by default they
    must be square and of one size."""
    preprocessing: str | None = None
    """Of `imagenet:PATH`: `Res256Crop224` (the default), `BicubicRes256Crop224`, `Res224`, `Crop288`, or a RobustBench
    name, for that model's own."""
    workers: Annotated[int, Range(lambda count: 0 <= count <= 512, "in [0, 512]", "; 0 reads in this process")] = 4
    """Processes that read images from disk ahead; the figures do not depend on them."""
    subset: Annotated[int | None, POSITIVE] = None
    """Train on this many images only (stratified); for tests and short looks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    name: str = "ResNet18"
    """A RobustBench architecture by name, `timm:NAME`, `torchvision:NAME`, or `module:function` that returns a model
    for images in [0, 1]."""
    width: Annotated[
        int, POSITIVE, Range(lambda width: width <= LARGEST, f"in [1, {LARGEST}]", "; the original is 64")
    ] = 64
    """Channels of the first stage; 64 is the original, 16 suits small machines."""
    normalize: bool = True
    """Normalise by the training images' mean and deviation in the model's first layer."""
    mean: tuple[float, ...] | None = None
    """Normalise by this mean instead, in [0, 1], one a channel or one for all; a checkpoint file without its
    normalisation needs it."""
    std: tuple[float, ...] | None = None
    """And by this deviation."""
    size: Annotated[int | None, POSITIVE, SIDE] = None
    """Resize images to this many pixels a side in the model's first layer, for an architecture made for another size:
    attacks stay at the size of the data."""
    weights: str | None = None
    """Start from these weights: a run folder (its best ones) or a checkpoint file; by default from random ones."""
    pick: str | None = None
    """Which of several weights in a checkpoint file, by their place, such as `state_dict_ema`."""
    pretrained: bool = False
    """Take the weights that timm or torchvision publishes for the name, normalised as they want it."""

    @property
    def title(self) -> str:
        """The architecture in words, with its width and size where those are not the usual ones."""
        width = f" of width {self.width}" if self.width != ModelConfig.width else ""
        return self.name + width + (f", images resized to {self.size}" if self.size else "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.weights:
            raise ConfigError(
                f"Expected `weights` or `pretrained`, but got both, {shown(self.weights)} and True; leave one out."
            )
        if (self.mean is None) != (self.std is None) or (self.mean is not None and not self.normalize):
            raise ConfigError(
                f"Expected `mean` and `std` together, with `normalize`, but got {self.mean} and {self.std} with "
                f"`normalize` {self.normalize}; give both or none."
            )
        if self.mean is not None and not all(0 <= value <= 1 for value in self.mean):
            raise ConfigError(f"Expected `mean` in [0, 1], pixel units, but got {self.mean}; divide both by 255.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackConfig(Section):
    attacks: tuple[str, ...] = ("pgd",)
    """Attacks of the training, names of the table; empty for training on clean images."""
    norm: Literal["Linf", "L2", "L1"] = "Linf"
    """The ball that results are projected on; of several the first."""
    union: tuple[str, ...] = ()
    """Further balls, such as `"L2 0.5" "L1 12"`: an attack works in the ball of its norm; validation, brake and
    evaluation ask in every ball."""
    mode: Literal["split", "chain", "worst", "concat"] = "split"
    """How several attacks meet a batch: a share each, one after the other, the worst of all, or all results."""
    pick: Literal["random", "all", "one"] = "all"
    """`random`: a random non-empty subset of the attacks each step; `one`: a random one."""
    steps: Annotated[int | None, POSITIVE] = None
    """Steps of the iterative attacks; by default each attack's own number."""
    step_ratio: Annotated[float | None, POSITIVE] = None
    """Step size over eps, of the attacks that have a step; by default each attack's own ratio."""
    start: Literal["own", "signs"] = "own"
    """Where attacks start: `own`, as each does by itself; `signs`, half of eps away in random signs (GAT, NuAT)."""
    strict: bool = False
    """Refuse attacks that return clean images where they fail."""
    adaptive: Annotated[float, _WEIGHT] = 0.0
    """Weight of R, as `loss` defines it, in what the attacks maximise: task loss + weight * R; 0 for the task alone."""

    @property
    def balls(self) -> tuple[Ball, ...]:
        """Those of ``union``. Raises ``ConfigError``."""
        return tuple(map(Ball.of, self.union))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControllerConfig(Section):
    rule: str = "constant"
    """How eps moves: `constant`, `literal`, `ramp`, `gap`, `ratio` or `ramp-trim`; `class-wise`: a share of the target
    for each class, by its accuracy under the training attack."""
    target: Epsilon = Epsilon("8/255")
    """The eps to reach (what `gap` and `ratio` are measured in), also the budget of validation and evaluation."""
    ramp_end: Annotated[float, Range(lambda share: 0 < share <= 1, "in (0, 1], a share of the steps")] = 0.6
    """Share of the steps after which `ramp` and `ramp-trim` stand at the target."""
    start: Epsilon | None = None
    """The first eps of `literal`, `gap` and `ratio`; by default the rule's own."""
    lower: Epsilon | None = None
    """Lower bound of the feedback rules; by default the rule's own."""
    upper: Epsilon | None = None
    """Upper bound of the feedback rules; by default the rule's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("rule", self.rule, RULES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrakeConfig(Section):
    watch: Literal["auto", "always", "never"] = "auto"
    """Watch for catastrophic overfitting; `auto`: where an attack of the training makes one step only."""
    every: Annotated[int, POSITIVE] = 100
    """Steps between two probes on a batch of held-out images; there is one at the end of every epoch too."""
    steps: Annotated[int, POSITIVE] = 7
    """Steps of the probe's PGD, at the eps of the training."""
    cut: Annotated[float, Range(lambda factor: 0 < factor < 1, "in (0, 1), a factor on eps")] = 0.75
    """After an alarm eps never exceeds this share of what it was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    clean: Annotated[float, _WEIGHT] = 0.0
    """Weight of the cross-entropy on clean images."""
    adversarial: Annotated[float, _WEIGHT] = 1.0
    """Weight of the cross-entropy on adversarial images."""
    consistency: Annotated[float, _WEIGHT] = 0.0
    """Weight of the consistency term R."""
    consistency_on: Literal["features", "softmax", "kl", "logits", "nuclear"] = "features"
    """What R compares: features, probabilities (squared distance), probabilities by KL divergence, logits (squared
    distance), or the batch's logits by the nuclear norm of their differences."""
    anchor: Literal["clean", "start"] = "clean"
    """What R compares adversarial images with: the clean ones, or where their attack started."""
    distance: Literal["squared", "plain", "cosine"] = "squared"
    """Distance between features: squared L2 (the article's formula), plain L2 (its code), or cosine."""
    relative: bool = False
    """Divide the feature distance by the clean features' norm, so that shrinking features does not lower it."""
    detach_clean: bool = False
    """Pull adversarial features towards clean ones only."""
    clean_share: Annotated[float, Range(lambda share: 0 < share <= 1, "in (0, 1]")] = 1.0
    """Share of the batch whose clean images are seen too; less is cheaper where only R or a signal needs them."""
    consistency_ramp: Annotated[float, SHARE] = 0.0
    """Share of the steps over which the weight of R grows linearly from 0."""
    layer: str | None = None
    """Dotted name of the module whose output is the features; by default the input of the last Linear."""
    label_smoothing: Annotated[float, SHARE] = 0.0
    """Label smoothing of both cross-entropies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean + self.adversarial == 0:
            raise ConfigError("Expected a weight on clean or adversarial cross-entropy, but got 0 and 0.")
        if self.anchor == "start" and (self.clean or not self.consistency):
            raise ConfigError(
                f"Expected R and no clean loss with `anchor` start, but got weights {self.consistency} and "
                f"{self.clean}; set `consistency` above 0 and `clean` to 0."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    name: Literal["sgd", "adam", "muon"] = "sgd"
    """SGD with Nesterov momentum, Adam, or Muon for the convolutions (where there are any) and SGD for the rest."""
    learning_rate: Annotated[float, POSITIVE] = 0.2
    """Peak learning rate; with muon of all but the convolutions."""
    muon_rate: Annotated[float, POSITIVE] = 0.02
    """Peak learning rate of Muon, under the same schedule."""
    momentum: Annotated[float, SHARE] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Range(lambda decay: decay >= 0, ">= 0", "; 0 is none")] = 5e-4
    """Weight decay."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """One-cycle: linear up to the peak, linear down to 0; or constant."""
    warmup: Annotated[float, SHARE] = 0.3
    """Share of the steps before the peak of one-cycle."""
    average: Annotated[float, Range(lambda decay: 0 <= decay < 1, "in [0, 1), a decay a step")] = 0.9995
    """Decay a step of the moving average of weights and buffers, warmed up; 0 for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Section):
    n: Annotated[int | None, POSITIVE] = None
    """Test images; by default all. The first n of a fixed, seeded, stratified order."""
    cw_n: Annotated[int | None, POSITIVE] = None
    """Most test images for CW (its 50 steps cost as much as all the other rows); by default n."""
    deepfool_n: Annotated[int | None, POSITIVE] = 200
    """Most test images for DeepFool, a Python loop over samples."""
    eps: Epsilon | None = None
    """Budget of the evaluation; by default the training's target."""
    batch_size: Annotated[int, POSITIVE] = 250
    """Images a batch, of the validation too."""
    seed: Annotated[int, SEED] = 0
    """Seed of random starts."""
