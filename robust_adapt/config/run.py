"""What a run is: its sections and what holds between them."""

import dataclasses
import re
from typing import Annotated, Any, Literal, Self

import tyro

from robust_adapt.ball import Ball, Epsilon, check_eps, factors
from robust_adapt.config.fields import POSITIVE, SEED, Section
from robust_adapt.config.sections import (
    AttackConfig,
    BrakeConfig,
    ControllerConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)
from robust_adapt.epsilon import RULES
from robust_adapt.errors import ConfigError, shown, unknown_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Section):
    recipe: Annotated[str, tyro.conf.Suppress]  # on the command line it is the first word, no flag
    """Name of the recipe that this config came from."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    attack: AttackConfig = AttackConfig()
    controller: ControllerConfig = ControllerConfig()
    brake: BrakeConfig = BrakeConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    epochs: Annotated[float, POSITIVE] = 30.0
    """Passes over the training images; a fraction ends inside an epoch."""
    minutes: Annotated[float | None, POSITIVE] = None
    """Instead of epochs: as many steps as a short probe says fit in so many minutes."""
    batch_size: Annotated[int, POSITIVE] = 128
    """Images a step, of all processes together."""
    seed: Annotated[int, SEED] = 0
    """Root of every seed of the run."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto`: bf16 mixed where the device is fast at it, else float32."""
    channels_last: bool = True
    """Keep weights in channels-last order (faster convolutions)."""
    compile: bool = False
    """torch.compile the model (a minute or more at the start)."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, one GPU such as `cuda:1`, or `mps`."""
    devices: Annotated[int, POSITIVE] = 1
    """Processes on each machine, a GPU or a CPU process each; torchrun says it itself."""
    nodes: Annotated[int, POSITIVE] = 1
    """Machines."""
    validation_steps: Annotated[int, POSITIVE] = 10
    """PGD steps of the validation after each epoch; in L1 APGD steps, 20 at least."""
    checkpoint_minutes: Annotated[float, POSITIVE] = 2.0
    """Write a checkpoint at least so often, also inside an epoch."""
    checkpoint_steps: Annotated[int | None, POSITIVE] = None
    """Instead of by the clock: write a checkpoint every so many steps, and after each epoch."""
    log_every: Annotated[int, POSITIVE] = 50
    """Steps between two step records."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.recipe, re.ASCII) is None:  # it names folders
            raise ConfigError(
                f"Expected `recipe` of letters, digits, _, - and ., but got {shown(self.recipe)}; a name, not a path."
            )
        target = check_eps(self.controller.target, norm=self.attack.norm, name="controller.target")
        factors(self.attack.norm, target, self.attack.balls)
        rule = self.controller.rule
        asking = (
            (self.loss.consistency, "for the consistency term", "`loss.consistency` to 0"),
            (self.loss.adversarial, "for the adversarial loss", "`loss.adversarial` to 0"),
            (self.attack.adaptive, "to maximise R", "`attack.adaptive` to 0"),
            (self.brake.watch == "always", "for the brake to watch", "`brake.watch` to auto"),
            (RULES[rule].signals, f"for the rule {rule!r}, which reads their losses", "`controller.rule` to constant"),
        )
        for asks, why, fix in asking:
            if asks and not self.attack.attacks:
                raise ConfigError(f"Expected attacks {why}, but got none; set {fix}.")

    @property
    def ball(self) -> Ball:
        """The budget of validation and evaluation, of several balls the first."""
        eps = self.evaluation.eps if self.evaluation.eps is not None else self.controller.target
        return Ball(self.attack.norm, eps)

    @property
    def balls(self) -> tuple[Ball, ...]:
        """All that the model must be right in."""
        return (self.ball, *self.attack.balls)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, as JSON keeps them."""
        return dataclasses.asdict(self)

    def shareable(self) -> dict[str, Any]:
        """``to_dict`` without the folders of this machine, for records that are published."""
        values = self.to_dict()
        kind, _, path = self.data.name.partition(":")
        if path:
            values["data"]["name"] = f"{kind}:{path.rstrip('/').rsplit('/', 1)[-1]}"
        values["data"] |= {"root": DataConfig().root, "workers": DataConfig().workers}
        if self.model.weights:
            values["model"]["weights"] = self.model.weights.rstrip("/").rsplit("/", 1)[-1]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config of ``to_dict``; a key that no field has is a ``ConfigError``."""
        if not isinstance(values, dict) or "recipe" not in values:
            raise ConfigError(
                f"Expected a Config as a dict with its `recipe`, but got {shown(values)}; see Config.to_dict()."
            )
        config: Self = _read_section(cls, values, cls.__name__)
        return config


def _read_section(section: type, values: dict[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(section)}
    read = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(unknown_name(f"field of {where}", key, fields))
        kind = fields[key].type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
            value = _read_section(kind, value, key)
        elif "Epsilon" in str(kind) and value is not None:
            value = Epsilon(value)
        elif isinstance(value, list):
            value = tuple(value)
        read[key] = value
    return section(**read)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts such as those of ``Config.to_dict`` as one, keys such as ``data.name``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
