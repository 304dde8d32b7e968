"""Every public function with arguments that work, and for each argument values that users give it by mistake."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import SmallNet

import robust_adapt
from robust_adapt import config as sections
from robust_adapt.auto_attack import Conditions
from robust_adapt.ball import Ball
from robust_adapt.data import Augmentation, ImageData, Split
from robust_adapt.leaderboard import Origin, Paper
from robust_adapt.recipes import on_digits
from robust_adapt.sanity import Effort

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])
SPLIT = Split((IMAGES * 255).round().to(torch.uint8), LABELS)
DATA = ImageData("tiny", SPLIT, SPLIT, SPLIT, tuple("abcdefghij"), Augmentation())

# what users give: numbers out of range, names that are none, images as they come out of files and loaders
EPS = [8, 1.5, -0.1, math.nan, math.inf, "8/0", "8/", "x", "", "1e999999999", 10**400]
NUMBER = [math.nan, math.inf, -math.inf, 10**400]
ABOVE = [0, -1, *NUMBER]
SHARE = [-0.1, 1.5, 52.5, *NUMBER]
WHOLE = [0, -5, 2**31]
SEED = [-1, 2**32]
NAMES = ["", " ", "pdg", "Nothing", "../../x", "a\0b", "[red]x[/]", "\x1b]0;x\x07", "\udcff", "x" * 5000]
MODES = ["random2", "Split"]
BATCHES = [
    IMAGES * 255,
    IMAGES * 4 - 2,
    IMAGES * math.nan,
    IMAGES - math.inf,
    (IMAGES * 255).to(torch.uint8),
    IMAGES[0],
    IMAGES[:0],
    IMAGES.to("meta"),
    IMAGES.to_sparse(),
    IMAGES.to(torch.complex64),
]
CLASSES = [LABELS.float(), LABELS - 1, LABELS + 100, LABELS[:2], LABELS[None], LABELS.bool(), LABELS.to("meta")]
SPLITS = [Split(IMAGES.to("meta"), LABELS), *(Split(SPLIT.images, labels) for labels in (*CLASSES[:3], CLASSES[4]))]
FEATURES = [torch.zeros(4, 6), torch.zeros(0, 5)]
STATISTICS = [[0.5], [0.5] * 4, [math.nan] * 3, [math.inf] * 3]
OBJECTS = {"effort": Effort, "conditions": Conditions, "origin": Origin, "paper": Paper}
MODELS = ["runs/best", SmallNet, SmallNet().state_dict(), lambda images: images, 3]


def hooked_model():
    """A model in a state that a careless call would change: training, one frozen layer, one hook, its own buffers."""
    torch.manual_seed(0)
    model = SmallNet().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.hidden.register_forward_hook(lambda _module, _inputs, output: output)
    return model


MODEL = hooked_model()


@dataclasses.dataclass(frozen=True)
class Door:
    """``call(**good)`` works; any value of ``bad`` in the place of one of them is refused in one sentence.

    typed: the arguments that are tried with values of other types too; none where the call would take its time.
    """

    call: Callable
    good: dict
    bad: dict
    typed: bool = True


def flat(function):
    """``function`` with the fields of its ball, conditions and effort as plain arguments."""
    wanted = inspect.signature(function).parameters
    kinds = {name: kind for name, kind in OBJECTS.items() if name in wanted}
    fields = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in kinds.items()}

    @functools.wraps(function)
    def call(**given):
        if "ball" in wanted or "conditions" in wanted:
            given["ball"] = Ball(given.pop("norm", "Linf"), given.pop("eps"))
        for name, kind in kinds.items():
            given[name] = kind(**{field: given.pop(field) for field in fields[name] if field in given})
        if "split" in wanted and "images" in given:
            given["split"] = given.pop("images"), given.pop("labels")
        return function(**given)

    call.known = {*wanted, "eps", "norm"}.union(*fields.values()) - {*kinds, "ball"}
    call.known |= {"images", "labels"} if "split" in wanted else set()
    return call


def door(function, good, bad, **options):
    """A door of what the function has as arguments, whichever of them are in an object by now."""
    call = flat(function)
    return Door(call, *({k: v for k, v in each.items() if k in call.known} for each in (good, bad)), **options)


def method(make, name, good, bad):
    """A door of a method of a fresh object."""
    return Door(lambda **given: getattr(make(), name)(**given), good, bad)


def doors(folder: Path) -> dict[str, Door]:
    """All of them; files that a call may write go below ``folder``."""
    return _controller() | _attacks() | _models() | _judges(folder) | _runs(folder)


def _controller():
    def make():
        return robust_adapt.EpsilonController("gap", target=0.1)

    state = make().state_dict()
    good = {"rule": "gap", "target": 0.1, "total_steps": 10, "norm": "Linf", "every": 1, "ramp_end": 0.6}
    bad = {"rule": NAMES, "target": EPS, "total_steps": WHOLE, "norm": NAMES, "every": WHOLE, "ramp_end": NUMBER}
    damaged = [state | {"rule": "ratio"}, state | {"eps": 0.9}]
    return {
        "Ball": Door(robust_adapt.Ball, {"norm": "Linf", "eps": "8/255"}, {"norm": NAMES, "eps": EPS}),
        "EpsilonController": Door(robust_adapt.EpsilonController, good, bad),
        "EpsilonController.step": method(make, "step", {"clean_loss": 0.1, "adv_loss": 0.2}, {}),
        "EpsilonController.limit": method(make, "limit", {"cap": 0.1}, {"cap": EPS}),
        "EpsilonController.load_state_dict": method(make, "load_state_dict", {"state": state}, {"state": damaged}),
    }


def _attacks():
    def make():
        return robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1)

    state = make().state_dict()
    one = {"model": MODEL, "eps": 0.1, "steps": 1, "step_ratio": 0.5}
    several = {"attacks": ("pgd", "fgsm"), "norm": "Linf", "mode": "split", "pick": "all", "seed": 0, "stream": 0}
    bad = {"model": MODELS, "eps": EPS, "steps": WHOLE, "step_ratio": ABOVE, "norm": NAMES, "mode": NAMES + MODES}
    bad |= {"attacks": [[name] for name in NAMES] + [["pgd", "pdg"], []], "seed": SEED}
    bad |= {"pick": [*MODES, [1, 2, 3], [-1, 1], [0, 0], [math.nan, 1]]}
    batch = {"images": IMAGES, "labels": LABELS}
    passes = {"attacks": ["pgd"], "mode": "split", "pick": "all", "steps": 1, "classes": 10}
    objective = {"forward": lambda images: (images, images), "weight": 1.0, "on": "features"}
    projected = {"adversarial": IMAGES, "images": IMAGES, "eps": 0.1, "norm": "Linf"}
    return {
        "DiverseAttack": Door(robust_adapt.DiverseAttack, one | several, bad),
        "DiverseAttack()": Door(
            lambda images, labels: make()(images, labels), batch, {"images": BATCHES, "labels": CLASSES}
        ),
        "DiverseAttack.eps": Door(
            lambda eps: setattr(make(), "eps", eps),
            {"eps": 0.1},
            {"eps": [*EPS, torch.full((4,), 2.0), torch.full((4,), math.nan)]},
        ),
        "DiverseAttack.success_rate": method(
            make,
            "success_rate",
            {"adversarial": IMAGES, "labels": LABELS},
            {"adversarial": BATCHES, "labels": CLASSES[:3]},
        ),
        "DiverseAttack.load_state_dict": method(make, "load_state_dict", {"state": state}, {}),
        "make_attack": Door(
            robust_adapt.make_attack,
            one | {"name": "pgd"},
            {name: bad[name] for name in one} | {"name": NAMES, "random_star": [True]},
        ),
        "project": Door(
            robust_adapt.project,
            projected,
            {
                "adversarial": [IMAGES[:2], IMAGES.to("meta"), IMAGES.to(torch.uint8)],
                "images": [IMAGES[:2], IMAGES.to("meta"), IMAGES.to(torch.uint8)],
                "eps": [-0.1, math.nan, torch.full((len(IMAGES),), -0.1), torch.full((len(IMAGES),), math.nan)],
                "norm": NAMES,
            },
        ),
        "crafting": Door(_craft, {"model": MODEL}, {"model": MODELS}),
        "plan_attacks": Door(
            robust_adapt.plan_attacks,
            passes,
            {name: bad[name] for name in ("attacks", "mode", "pick", "steps")} | {"classes": [1, *WHOLE]},
        ),
        "adaptive_objective": Door(
            robust_adapt.adaptive_objective, objective, {"weight": NUMBER, "on": NAMES, "relatve": [True]}
        ),
    }


def _craft(model):
    with robust_adapt.crafting(model, seed=0):
        pass


def _models():
    def make():
        return robust_adapt.WeightAverage(MODEL)

    def tap(model, layers):
        with robust_adapt.FeatureTap(model, layers) as features:
            features(IMAGES)

    names = [*NAMES, "ResNet81", "os:nothing", "no_module:x", ":", "a:", ":b", "os.path:join", "math:sqrt", "os:getcwd"]
    build = {"name": "ResNet18", "num_classes": 10, "channels": 3, "width": 4, "size": 8}
    build |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    zero = [*STATISTICS, [0.0] * 3, [-1.0] * 3]
    features = {"clean": torch.zeros(4, 5), "adversarial": torch.ones(4, 5)}
    logits = {f"{side}_logits": tensor for side, tensor in features.items()}
    pairs = {"flags_a": [True, False], "flags_b": [False, True]}
    state = make().state_dict()
    return {
        "build_model": Door(
            robust_adapt.build_model,
            build,
            {"name": names, "num_classes": [1, *WHOLE], "channels": WHOLE, "width": [*WHOLE, 5000]}
            | {"size": [*WHOLE, 1, 2, 3, 5, 33, 65], "mean": STATISTICS, "std": zero},
        ),
        "normalize": Door(
            robust_adapt.normalize,
            {"model": MODEL, "mean": [0.5] * 3, "std": [0.5] * 3},
            {"model": MODELS, "mean": STATISTICS, "std": zero},
        ),
        "FeatureTap": Door(
            tap, {"model": MODEL, "layers": "conv"}, {"model": MODELS, "layers": [*NAMES, ["conv", "cnov"]]}
        ),
        "WeightAverage": Door(
            robust_adapt.WeightAverage, {"model": MODEL, "decay": 0.9}, {"model": MODELS, "decay": [1.0, *SHARE]}
        ),
        "WeightAverage.update": method(
            make, "update", {"model": MODEL}, {"model": [*MODELS, torch.nn.Linear(2, 2), SmallNet(channels=1)]}
        ),
        "WeightAverage.load_state_dict": method(
            make, "load_state_dict", {"state": state}, {"state": [{}, {"module": {}, "updates": 1}, {"updates": 1}]}
        ),
        "feature_consistency": Door(
            robust_adapt.feature_consistency,
            features | {"distance": "squared"},
            {"clean": FEATURES, "adversarial": FEATURES, "distance": NAMES},
        ),
        "softmax_consistency": Door(robust_adapt.softmax_consistency, logits, dict.fromkeys(logits, FEATURES)),
        "kl_consistency": Door(robust_adapt.kl_consistency, logits, dict.fromkeys(logits, FEATURES)),
        "mcnemar": Door(robust_adapt.mcnemar, pairs, dict.fromkeys(pairs, [[], [True], [0, 2], [-1, 1]])),
    }


def _judges(folder):
    common = {"model": MODEL, "split": SPLIT, "eps": 0.1, "norm": "Linf", "n": 4, "seed": 0}
    common |= {"batch_size": 4}
    bad = {"model": MODELS, "split": SPLITS, "eps": EPS, "norm": NAMES, "n": WHOLE, "seed": SEED, "batch_size": WHOLE}
    custom = {"version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}
    no_custom = {
        "version": [*NAMES, "Standard"],
        "attacks": [["pgd"], ["apgd-ce", "apgd-ce"], []],
        "settings": [{"x": {}}, {"apgd": {"x": 1}}, {"apgd": {"n_restarts": 0}}],
        "shard": [(1, 1), (-1, 2)],
    }
    batch = {"model": SmallNet().eval(), "images": IMAGES, "labels": LABELS, "shard": (0, 1)}
    placed = {"accuracy": 0.5, "norm": "Linf", "n": 100, "eps": "8/255", "dataset": "cifar100"}
    quick = Conditions(Ball("Linf", 0.1), version="custom", attacks=["square"], settings={"square": {"n_queries": 1}})
    record = robust_adapt.benchmark(MODEL.eval(), DATA, quick, n=4)
    MODEL.load_state_dict(hooked_model().state_dict())
    for one, other in zip(MODEL.modules(), hooked_model().modules(), strict=True):
        one.training = other.training
    submission = {"out": folder / "submission", "model": MODEL, "record": record, "name": "A2026B", "title": "A"}
    submission |= {"authors": "A", "link": "https://a.org", "architecture": "SmallNet", "draft": True}
    submission |= {"source": "build = None"}
    outside = ["../x", "a/../../b", "/tmp/x", "..", ".", "a\\..\\b", "", "a\0", "a b\n", "\x1b[31m"]
    zoo = {"name": "Standard", "dataset": "cifar10", "threat": "Linf", "model_dir": folder / "none", "offline": True}
    return {
        "evaluate_model": door(
            robust_adapt.evaluate_model,
            common | {"rows": ["Clean", "FGSM"], "limits": None},
            bad | {"rows": [[name] for name in NAMES], "limits": [{"fgsm": 0}]},
        ),
        "autoattack": door(
            robust_adapt.autoattack,
            batch | custom | {name: common[name] for name in ("eps", "norm", "seed", "batch_size")},
            {"images": BATCHES, "labels": CLASSES, "eps": [0, *EPS]}
            | no_custom
            | {name: bad[name] for name in ("model", "norm", "seed", "batch_size")},
            typed=False,
        ),
        "check_sanity": door(
            robust_adapt.check_sanity,
            common | {"steps": 1, "queries": 1},
            bad | {"eps": [0, *EPS], "norm": [*NAMES, "L1"], "steps": WHOLE, "queries": WHOLE},
            typed=False,
        ),
        "benchmark": door(
            robust_adapt.benchmark, common | custom | {"data": DATA}, bad | no_custom | {"eps": [0, *EPS]}, typed=False
        ),
        "place": door(
            robust_adapt.place,
            placed,
            {"accuracy": SHARE, "norm": [*NAMES, "L1"], "dataset": NAMES, "n": WHOLE, "eps": EPS},
        ),
        "submit": door(robust_adapt.submit, submission, {"name": outside, "model": MODELS}, typed=False),
        "load_zoo_model": Door(
            robust_adapt.load_zoo_model,
            zoo,
            {"name": ["Standart", *NAMES], "dataset": NAMES, "threat": NAMES, "model_dir": [folder / "nowhere"]},
            typed=False,  # the model is not there
        ),
        "compare": Door(
            robust_adapt.compare,
            dict.fromkeys("ab", folder),
            dict.fromkeys("ab", [folder, folder / "nowhere"]),
            typed=False,  # there are none
        ),
    }


def tiny_config(**fields):
    config = on_digits(robust_adapt.recipe("pgd"), epochs=1)
    config = dataclasses.replace(config, batch_size=2, precision="32-true", device="cpu", validation_steps=1, **fields)
    return dataclasses.replace(config, attack=dataclasses.replace(config.attack, steps=1))


def _runs(folder):
    junk = folder / "junk.pt"
    junk.write_bytes(b"<html>quota exceeded</html>")
    config = tiny_config()
    replace = functools.partial(dataclasses.replace, config)
    cannot = [
        replace(model=sections.ModelConfig(name="ResNet81")),
        replace(model=sections.ModelConfig(name="no_module:x")),
        replace(model=sections.ModelConfig(width=4, weights=str(junk))),
        replace(attack=sections.AttackConfig(attacks=("pdg",))),
        replace(batch_size=5000),
        replace(device="cuda:9"),
        replace(loss=sections.LossConfig(consistency=1.0, layer="nowhere")),
    ]
    files = [junk, junk / "x", "/dev/null/x", "x" * 5000, "/proc/x"]
    roots = ["folder:", "folder:/", "folder:a\0b", "folder:" + "x" * 5000, "folder:/dev/null", "folder:\udcff"]
    data = {"name": "digits", "root": "data", "offline": True, "validation": 10}
    pixels = torch.utils.data.TensorDataset(IMAGES, LABELS)
    normalised = torch.utils.data.TensorDataset(IMAGES * 4 - 2, LABELS)
    return {
        "recipe": Door(robust_adapt.recipe, {"name": "pgd"}, {"name": NAMES, "recipe": ["../x"], "batch_sise": [3]}),
        "load_data": Door(
            lambda **fields: robust_adapt.load_data(sections.DataConfig(**fields)),
            data,
            {"name": [*NAMES, *roots], "validation": WHOLE},
        ),
        "from_datasets": Door(
            robust_adapt.from_datasets,
            {
                "train": pixels,
                "test": pixels,
                "classes": list("abcd"),
                "title": "mine",
                "config": sections.DataConfig(validation=2),
            },
            {"train": [normalised], "test": [normalised], "classes": [["a"], []]},
        ),
        "load_test": Door(
            robust_adapt.load_test,
            {"dataset": pixels, "classes": list("abcd"), "title": "mine", "workers": 0},
            {"dataset": [normalised, []], "classes": [["a"], []], "workers": [-1, 2**31]},
        ),
        "plan_run": Door(
            robust_adapt.plan_run, {"config": config, "probe": 0.0}, {"probe": [-1.0, math.nan, math.inf]}
        ),
        "load_run": Door(robust_adapt.load_run, {}, {"folder": [folder, "/dev/null", folder / "nowhere", *files]}),
        "evaluate": Door(robust_adapt.evaluate, {}, {"run": [folder, "/dev/null", folder / "nowhere", *files]}),
        "train": Door(
            robust_adapt.train,
            {"config": config, "out": folder / "run", "data": DATA},
            {"config": cannot, "out": files},
            typed=False,  # it trains
        ),
    }
