"""The sections of a run's config: frozen dataclasses, a sentence under each field, checks and nothing else."""

import dataclasses
from typing import Literal

from robust_adapt.config.checks import check_positive, check_share, check_types
from robust_adapt.errors import ConfigError, unknown_name
from robust_adapt.units import Epsilon

LARGEST = 4096
RULES = ("constant", "literal", "ramp", "gap", "ratio", "ramp-trim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    name: str = "cifar10"
    """`cifar10`, `cifar10.1` (a test set), `digits` (embedded), `folder:PATH` with train/CLASS/* and test/CLASS/*."""
    root: str = "data"
    """Where torchvision's data sets are kept."""
    offline: bool = False
    """Never download."""
    validation: int | None = None
    """Images held out of the training split, the same number of each class; every choice is made on them. By default
    1000, or a tenth of the training images where that is less."""
    seed: int = 0
    """Seed of the held-out split."""
    flip: bool | None = None
    """Random horizontal flips in training; by default what suits the data set."""
    crop: int | None = None
    """Random crops in training out of images padded by this many pixels; by default what suits the data set."""
    size: int | None = None
    """Resize the images of a folder: the short side to this many pixels, then the square in the middle; by default they
    must be square and of one size."""
    subset: int | None = None
    """Train on this many images only (stratified); for tests and short looks."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "validation", "subset", "size")
        if self.crop is not None and self.crop < 0:
            raise ConfigError(f"Expected `crop` >= 0 pixels, but got {self.crop}.")
        if self.size is not None and self.size > LARGEST:
            raise ConfigError(
                f"Expected `size` in [1, {LARGEST}] pixels, but got {self.size}; give the side of an image."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = "ResNet18"
    """A RobustBench architecture by name, or `module:function` that returns a model for images in [0, 1]."""
    width: int = 64
    """Channels of the first stage; 64 is the original, 16 suits small machines."""
    normalize: bool = True
    """Normalise by the training images' mean and deviation in the model's first layer."""
    mean: tuple[float, ...] | None = None
    """Normalise by this mean instead, in [0, 1], one a channel or one for all; a checkpoint file without its
    normalisation needs it."""
    std: tuple[float, ...] | None = None
    """And by this deviation."""
    weights: str | None = None
    """Start from these weights: a run folder (its best ones) or a checkpoint file; by default from random ones."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "width")
        if (self.mean is None) != (self.std is None) or (self.mean is not None and not self.normalize):
            raise ConfigError(
                f"Expected `mean` and `std` together, with `normalize`, but got {self.mean} and {self.std} with "
                f"`normalize` {self.normalize}; give both or none."
            )
        if self.mean is not None and not all(0 <= value <= 1 for value in self.mean):
            raise ConfigError(f"Expected `mean` in [0, 1], pixel units, but got {self.mean}; divide both by 255.")
        if self.width > LARGEST:
            raise ConfigError(f"Expected `width` in [1, {LARGEST}], but got {self.width}; the original is 64.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackConfig:
    attacks: tuple[str, ...] = ("pgd",)
    """Attacks of the training, names of the table; empty for training on clean images."""
    norm: Literal["Linf", "L2", "L1"] = "Linf"
    """The ball that every result is projected on."""
    mode: Literal["split", "chain", "worst", "concat"] = "split"
    """How several attacks meet a batch: a share each, one after the other, the worst of all, or all results."""
    pick: Literal["random", "all"] = "all"
    """`random`: a random non-empty subset of the attacks each step."""
    steps: int | None = None
    """Steps of the iterative attacks; by default each attack's own number."""
    step_ratio: float | None = None
    """Step size over eps, of the attacks that have a step; by default each attack's own ratio."""
    strict: bool = False
    """Refuse attacks that return clean images where they fail."""
    adaptive: float = 0.0
    """Weight of R, as `loss` defines it, in what the attacks maximise: task loss + weight * R; 0 for the task alone."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "steps", "step_ratio")
        if not self.adaptive >= 0:
            raise ConfigError(f"Expected `adaptive` >= 0, the weight of R, but got {self.adaptive}.")
        if self.adaptive and not self.attacks:
            raise ConfigError("Expected attacks to maximise R, but got none; set `attack.adaptive` to 0.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    rule: str = "constant"
    """How eps moves: `constant`, `literal`, `ramp`, `gap`, `ratio` or `ramp-trim`."""
    target: Epsilon = Epsilon("8/255")
    """The eps to reach (what `gap` and `ratio` are measured in), also the budget of validation and evaluation."""
    ramp_end: float = 0.6
    """Share of the steps after which `ramp` and `ramp-trim` stand at the target."""
    start: Epsilon | None = None
    """The first eps of `literal`, `gap` and `ratio`; by default the rule's own."""
    lower: Epsilon | None = None
    """Lower bound of the feedback rules; by default the rule's own."""
    upper: Epsilon | None = None
    """Upper bound of the feedback rules; by default the rule's own."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.rule not in RULES:
            raise ConfigError(unknown_name("rule", self.rule, RULES))
        if not 0 < self.ramp_end <= 1:
            raise ConfigError(f"Expected `ramp_end` in (0, 1], a share of the steps, but got {self.ramp_end}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrakeConfig:
    watch: Literal["auto", "always", "never"] = "auto"
    """Watch for catastrophic overfitting; `auto`: where an attack of the training makes one step only."""
    every: int = 100
    """Steps between two probes on a batch of held-out images; there is one at the end of every epoch too."""
    steps: int = 7
    """Steps of the probe's PGD, at the eps of the training."""
    cut: float = 0.75
    """After an alarm eps never exceeds this share of what it was."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "every", "steps")
        if not 0 < self.cut < 1:
            raise ConfigError(f"Expected `cut` in (0, 1), a factor on eps, but got {self.cut}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    clean: float = 0.0
    """Weight of the cross-entropy on clean images."""
    adversarial: float = 1.0
    """Weight of the cross-entropy on adversarial images."""
    consistency: float = 0.0
    """Weight of the consistency term R."""
    consistency_on: Literal["features", "softmax", "kl"] = "features"
    """What R compares: features, probabilities (squared distance), or probabilities by KL divergence."""
    distance: Literal["squared", "plain", "cosine"] = "squared"
    """Distance between features: squared L2 (the article's formula), plain L2 (its code), or cosine."""
    relative: bool = False
    """Divide the feature distance by the clean features' norm, so that shrinking features does not lower it."""
    detach_clean: bool = False
    """Pull adversarial features towards clean ones only."""
    clean_share: float = 1.0
    """Share of the batch whose clean images are seen too; less is cheaper where only R or a signal needs them."""
    consistency_ramp: float = 0.0
    """Share of the steps over which the weight of R grows linearly from 0."""
    layer: str | None = None
    """Dotted name of the module whose output is the features; by default the input of the last Linear."""
    label_smoothing: float = 0.0
    """Label smoothing of both cross-entropies."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("clean", "adversarial", "consistency"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected `{name}` >= 0, a weight, but got {getattr(self, name)}.")
        if self.clean + self.adversarial == 0:
            raise ConfigError("Expected a weight on clean or adversarial cross-entropy, but got 0 and 0.")
        check_share(self, "label_smoothing", "consistency_ramp")
        if not 0 < self.clean_share <= 1:
            raise ConfigError(f"Expected `clean_share` in (0, 1], but got {self.clean_share}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    name: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum, or Adam."""
    learning_rate: float = 0.2
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """One-cycle: linear up to the peak, linear down to 0; or constant."""
    warmup: float = 0.3
    """Share of the steps before the peak of one-cycle."""
    average: float = 0.9995
    """Decay a step of the moving average of weights and buffers, warmed up; 0 for none."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "learning_rate")
        check_share(self, "momentum", "warmup")
        if self.weight_decay < 0:
            raise ConfigError(f"Expected `weight_decay` >= 0, but got {self.weight_decay}; 0 is none.")
        if not 0 <= self.average < 1:
            raise ConfigError(f"Expected `average` in [0, 1), a decay a step, but got {self.average}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    n: int | None = None
    """Test images; by default all. The first n of a fixed, seeded, stratified order."""
    cw_n: int | None = None
    """Most test images for CW (its 50 steps cost as much as all the other rows); by default n."""
    deepfool_n: int | None = 200
    """Most test images for DeepFool, a Python loop over samples."""
    eps: Epsilon | None = None
    """Budget of the evaluation; by default the training's target."""
    batch_size: int = 250
    """Images a batch, of the validation too."""
    seed: int = 0
    """Seed of random starts."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "n", "cw_n", "deepfool_n", "batch_size")
