"""Every public function with arguments that work, and for each argument values that must not."""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import SmallNet
from fuzz_values import (
    OBJECTS,
    TEXTS,
    wrong,
    wrong_eps,
    wrong_flag,
    wrong_function,
    wrong_images,
    wrong_labels,
    wrong_model,
    wrong_name,
    wrong_number,
    wrong_path,
    wrong_tensor,
    wrong_whole,
)
from hypothesis import strategies as st

import robust_adapt
from robust_adapt import config as sections
from robust_adapt.attacks import ATTACKS
from robust_adapt.data import Augmentation, ImageData, Split
from robust_adapt.evaluation import ROWS
from robust_adapt.processes import Processes
from robust_adapt.recipes import RECIPES, on_digits
from robust_adapt.units import NORMS, Epsilon

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])
SPLIT = Split((IMAGES * 255).round().to(torch.uint8), LABELS)
DATA = ImageData("tiny", SPLIT, SPLIT, SPLIT, tuple("abcdefghij"), Augmentation())


def hooked_model():
    """A model in a state that a careless call would change: training, one frozen layer, one hook, its own buffers."""
    torch.manual_seed(0)
    model = SmallNet().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.hidden.register_forward_hook(lambda _module, _inputs, output: output)
    return model


MODEL = hooked_model()


def tiny_config(**fields):
    config = on_digits(robust_adapt.recipe("pgd"), epochs=1)
    config = dataclasses.replace(config, batch_size=2, precision="32-true", device="cpu", validation_steps=1, **fields)
    return dataclasses.replace(config, attack=dataclasses.replace(config.attack, steps=1))


@dataclasses.dataclass(frozen=True)
class Door:
    """call(**arguments) works with ``good``, and must refuse any value of ``bad`` in the place of one of them."""

    call: Callable
    good: dict
    bad: dict
    quick: bool = True


def config_door(kind, good=()):
    """A section of the config: values that are not of a field's type, for every field."""
    bad = {field.name: wrong_field(field.name, field.type) for field in dataclasses.fields(kind)}
    return Door(kind, dict(good), bad)


def wrong_field(name, kind):
    optional = type(None) in typing.get_args(kind)
    kind = next((part for part in typing.get_args(kind) if part is not type(None)), kind) if optional else kind
    if typing.get_origin(kind) is typing.Literal:
        return wrong_name(*typing.get_args(kind), optional=optional)
    if name == "recipe":
        return wrong_name().filter(lambda value: not (isinstance(value, str) and value.isalnum() and value.isascii()))
    if name in ("rule", "mode"):
        return wrong_name(*sections.RULES)
    kinds = {bool: wrong_flag, Epsilon: lambda optional: wrong(st.integers(), st.booleans(), but=float)}
    kinds |= {float: wrong_number, str: lambda optional: wrong(st.integers(), st.floats(), st.booleans(), but=str)}
    if kind is int:
        return wrong_whole(0 if name in ("seed", "crop") else 1, 2**32 if name == "seed" else 2**31, optional=optional)
    if kind in kinds:
        values = kinds[kind](optional=optional)
        return values.filter(lambda value: value is not None) if optional else values
    return wrong(st.integers(), st.floats(), but=tuple)  # tuples of names and nested sections


def from_dict_door(kind, good):
    """A dict as JSON would bring it, with junk in the place of one key."""
    junk = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), TEXTS, st.just([]), st.just({"a": 1}))

    def call(values, key, value):
        kind.from_dict(values | {key: value} if isinstance(values, dict) and key else values)

    keys = st.sampled_from(["unknown", "epoch", "__class__", "data ", "", "x" * 300]).filter(bool)
    return Door(
        call, {"values": good, "key": "", "value": None}, {"values": OBJECTS | junk.filter(_no_dict), "key": keys}
    )


def _no_dict(value):
    return not isinstance(value, dict)


def doors(folder: Path) -> dict[str, Door]:
    """All of them; files that a call may write go below ``folder``."""
    return (
        _configs()
        | _controller()
        | _attacks()
        | _models()
        | _losses()
        | _evaluations()
        | _boards(folder)
        | _runs(folder)
    )


def _configs():
    names = ("Data", "Model", "Attack", "Controller", "Loss", "Optimizer", "Evaluation")
    kinds = {name: getattr(sections, f"{name}Config") for name in names}
    recipe = dict(vars(robust_adapt.recipe("pgd")))
    return {f"{name}Config": config_door(kind) for name, kind in kinds.items()} | {
        "Config": config_door(robust_adapt.Config, recipe),
        "Config.from_dict": from_dict_door(robust_adapt.Config, robust_adapt.recipe("pgd").to_dict()),
        "recipe": Door(robust_adapt.recipe, {"name": "pgd"}, {"name": wrong_name(*RECIPES)}),
        "Epsilon": Door(Epsilon, {"value": "8/255"}, {"value": wrong(st.booleans()).filter(_no_number)}),
    }


def _no_number(value):
    if not isinstance(value, str):
        return True
    try:
        above, _, below = value.partition("/")
        return not abs(float(above) / float(below or 1)) < float("inf")
    except (ValueError, ZeroDivisionError, RuntimeError):
        return True


def _controller():
    good = {"rule": "gap", "target": 0.1, "total_steps": 10, "norm": "Linf", "every": 1, "start": None, "lower": None}
    good |= {"upper": None, "goal": None, "ramp_end": 0.6}
    bad = {
        "rule": wrong_name(*sections.RULES),
        "target": wrong_eps(),
        "norm": wrong_name(*NORMS),
        "every": wrong_whole(),
        "start": wrong_eps(optional=True),
        "lower": wrong_eps(optional=True),
        "upper": wrong_eps(optional=True),
        "goal": wrong_number(optional=True),
        "ramp_end": wrong_number(0, 1),
        "total_steps": wrong_whole(optional=True),
    }

    def step(**signals):
        robust_adapt.EpsilonController("gap", target=0.1).step(**signals)

    def limit(cap):
        robust_adapt.EpsilonController("gap", target=0.1).limit(cap)

    def load(state):
        robust_adapt.EpsilonController("gap", target=0.1).load_state_dict(state)

    state = robust_adapt.EpsilonController("gap", target=0.1).state_dict()
    no_signal = wrong(st.booleans()).filter(lambda value: _no_number(value) and not isinstance(value, torch.Tensor))
    damaged = st.sampled_from(list(state)).map(lambda key: {k: v for k, v in state.items() if k != key})
    return {
        "EpsilonController": Door(robust_adapt.EpsilonController, good, bad),
        "EpsilonController.step": Door(
            step, {"clean_loss": 0.1, "adv_loss": 0.2}, {"clean_loss": no_signal, "adv_loss": no_signal}
        ),
        "EpsilonController.limit": Door(limit, {"cap": 0.1}, {"cap": wrong_eps()}),
        "EpsilonController.load_state_dict": Door(load, {"state": state}, {"state": wrong() | damaged}),
    }


def _attacks():
    options = {
        "model": MODEL,
        "eps": 0.1,
        "norm": "Linf",
        "mode": "split",
        "pick": "all",
        "steps": 1,
        "step_ratio": 0.5,
        "objective": None,
        "seed": 0,
        "stream": 0,
        "strict": False,
    }
    names = wrong_name(*ATTACKS)
    bad = {
        "model": wrong_model(),
        "attacks": wrong(names.map(lambda name: [name]), but=tuple) | names.map(lambda name: ("pgd", name)),
        "eps": wrong_eps().filter(lambda value: not isinstance(value, torch.Tensor)),
        "norm": wrong_name(*NORMS),
        "mode": wrong_name("split", "chain", "worst", "concat"),
        "pick": wrong_name("random", "all")
        | st.sampled_from([[1, 2, 3], [-1, 1], [0, 0], ["a", "b"], [float("nan"), 1]]),
        "steps": wrong_whole(optional=True),
        "step_ratio": wrong_number(0, optional=True),
        "objective": wrong_function(),
        "seed": wrong_whole(0, 2**32),
        "stream": wrong_whole(0, 2**32),
        "strict": wrong_flag(),
    }
    call = {"images": IMAGES, "labels": LABELS}
    wrong_call = {"images": wrong_images(), "labels": wrong_labels()}
    state = robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1).state_dict()
    bad_state = wrong() | st.sampled_from([{}, {"random": state["random"]}, {"random": [3, [1], None], "calls": 0}])
    batch = {"adversarial": IMAGES, "images": IMAGES, "eps": 0.1, "norm": "Linf"}
    planned = {"attacks": ["pgd"], "mode": "split", "pick": "all", "steps": 1, "classes": 10, "adaptive": False}
    plans = {name: bad[name] for name in ("mode", "steps")}
    plans |= {"attacks": bad["attacks"].filter(lambda value: not isinstance(value, str) or value not in ATTACKS)}
    plans |= {"classes": wrong_whole(2), "adaptive": wrong_flag()}
    objective = {"forward": lambda images: (images, images), "weight": 1.0, "on": "features", "task": None}
    objectives = {"forward": wrong_function() | st.none(), "weight": wrong_number(), "task": wrong_function()}
    objectives |= {"on": wrong_name("features", "softmax", "kl"), "relatve": wrong()}
    return {
        "plan": Door(robust_adapt.plan, planned, plans),
        "adaptive_objective": Door(robust_adapt.adaptive_objective, objective, objectives),
        "DiverseAttack": Door(robust_adapt.DiverseAttack, options | {"attacks": ("pgd", "fgsm")}, bad),
        "DiverseAttack()": Door(
            lambda images, labels: robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1)(images, labels),
            call,
            wrong_call,
        ),
        "DiverseAttack.eps": Door(
            lambda eps: setattr(robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1), "eps", eps),
            {"eps": 0.1},
            {"eps": wrong_eps() | st.sampled_from([torch.full((4,), 2.0), torch.full((4,), float("nan"))])},
        ),
        "DiverseAttack.success_rate": Door(
            lambda adversarial, labels: robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1).success_rate(
                adversarial, labels
            ),
            {"adversarial": IMAGES, "labels": LABELS},
            {"adversarial": wrong_images(), "labels": wrong_labels()},
        ),
        "DiverseAttack.load_state_dict": Door(
            lambda state: robust_adapt.DiverseAttack(MODEL, ["fgsm"], eps=0.1).load_state_dict(state),
            {"state": state},
            {"state": bad_state},
        ),
        "make_attack": Door(
            robust_adapt.make_attack,
            {"name": "pgd"} | {name: options[name] for name in ("model", "eps", "steps", "step_ratio", "objective")},
            {name: bad[name] for name in ("model", "eps", "steps", "step_ratio", "objective")}
            | {"name": names, "random_start": wrong(st.integers(2), but=bool)},
        ),
        "project": Door(
            robust_adapt.project,
            batch,
            {
                "adversarial": wrong_tensor((4, 3, 8, 8)),
                "images": wrong_tensor((4, 3, 8, 8)),
                "eps": wrong(st.floats(max_value=-1e-9), st.just(float("nan")), st.booleans()).filter(_no_eps),
                "norm": wrong_name(*NORMS),
            },
        ),
        "crafting": Door(
            _craft, {"model": MODEL, "seed": 0}, {"model": wrong_model(), "seed": wrong_whole(0, 2**63, optional=True)}
        ),
    }


def _no_eps(value):
    return not isinstance(value, str) or _no_number(value) or float(value.partition("/")[0]) < 0


def _craft(model, seed):
    with robust_adapt.crafting(model, seed=seed):
        pass


def _models():
    build = {
        "name": "ResNet18",
        "num_classes": 10,
        "channels": 3,
        "width": 4,
        "size": 8,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    statistics = wrong(st.integers(), st.floats(), but=range) | st.sampled_from(
        [[0.5], [0.5] * 4, [float("nan")] * 3, ["a"] * 3, [None] * 3, "abc", [[0.5]] * 3]
    )
    zero = statistics | st.sampled_from([[0.0] * 3, [-1.0] * 3, [float("inf")] * 3])

    def load_average(state):
        robust_adapt.WeightAverage(MODEL).load_state_dict(state)

    def update(model):
        robust_adapt.WeightAverage(MODEL).update(model)

    def tap(model, layers):
        with robust_adapt.FeatureTap(model, layers) as open_tap:
            open_tap(IMAGES)

    other = st.sampled_from([torch.nn.Linear(2, 2), torch.nn.Flatten(), SmallNet(channels=1)])
    state = robust_adapt.WeightAverage(MODEL).state_dict()
    bad_state = wrong() | st.sampled_from([{"module": {}, "updates": 1}, {"module": state["module"]}, {"updates": 1}])
    return {
        "build_model": Door(
            robust_adapt.build_model,
            build,
            {
                "name": wrong_name("ResNet18", "ResNet34", "ResNet50", "PreActResNet18")
                | st.sampled_from(
                    ["os:nothing", "no_module:x", ":", "a:", ":b", "os.path:join", "math:sqrt", "os:getcwd"]
                ),
                "num_classes": wrong_whole(2),
                "channels": wrong_whole(),
                "width": wrong_whole(1, 4097),
                "size": wrong_whole(1, 65) | st.sampled_from([1, 2, 3, 5, 33]),
                "mean": statistics,
                "std": zero,
            },
        ),
        "normalize": Door(
            robust_adapt.normalize,
            {"model": MODEL, "mean": [0.5] * 3, "std": [0.5] * 3},
            {"model": wrong_model(), "mean": statistics, "std": zero},
        ),
        "FeatureTap": Door(tap, {"model": MODEL, "layers": "conv"}, {"model": wrong_model(), "layers": wrong_layers()}),
        "WeightAverage": Door(
            robust_adapt.WeightAverage,
            {"model": MODEL, "decay": 0.9},
            {"model": wrong_model(), "decay": wrong_number(0, 1) | st.just(1.0)},
        ),
        "WeightAverage.update": Door(update, {"model": MODEL}, {"model": wrong_model() | other}),
        "WeightAverage.load_state_dict": Door(load_average, {"state": state}, {"state": bad_state}),
    }


def wrong_layers():
    names = wrong_name("conv", "norm", "drop", "hidden", "head", optional=True).filter(lambda value: value is not ...)
    return names | names.map(lambda name: [name])


def _losses():
    features = {"clean": torch.zeros(4, 5), "adversarial": torch.ones(4, 5)}
    logits = {f"{side}_logits": tensor for side, tensor in features.items()}
    wrong_logits = {name: wrong_tensor() for name in logits} | {"detach_clean": wrong_flag()}
    options = {"distance": "squared", "relative": False, "detach_clean": False}
    return {
        "feature_consistency": Door(
            robust_adapt.feature_consistency,
            features | options,
            {
                "clean": wrong_tensor(),
                "adversarial": wrong_tensor(),
                "distance": wrong_name("squared", "plain", "cosine"),
                "relative": wrong_flag(),
                "detach_clean": wrong_flag(),
            },
        ),
        "softmax_consistency": Door(robust_adapt.softmax_consistency, logits | {"detach_clean": False}, wrong_logits),
        "kl_consistency": Door(robust_adapt.kl_consistency, logits | {"detach_clean": False}, wrong_logits),
        "mcnemar": Door(
            robust_adapt.mcnemar,
            {"flags_a": [True, False], "flags_b": [False, True]},
            {
                name: wrong(st.integers(), st.just([True]), st.just([])).filter(_no_flags)
                for name in ("flags_a", "flags_b")
            },
        ),
    }


def _no_flags(value):
    return not isinstance(value, str | dict) and (not hasattr(value, "__len__") or len(value) != 2)


def _evaluations():
    good = {"model": MODEL, "split": SPLIT, "eps": 0.1, "norm": "Linf", "rows": ["Clean", "FGSM"], "n": None}
    good |= {"limits": None, "batch_size": 4, "seed": 0, "name": "model", "data": "", "config": None, "report": None}
    good |= {"processes": Processes()}
    splits = st.one_of(
        wrong_images()
        .map(lambda images: Split(images, LABELS))
        .filter(lambda s: getattr(s.images, "dtype", 0) != torch.uint8),
        wrong_labels().map(lambda labels: Split(SPLIT.images, labels)),
        wrong(st.integers()),
    )
    rows = wrong_name(*ROWS)
    bad = {
        "model": wrong_model(),
        "split": splits,
        "eps": wrong_eps(),
        "norm": wrong_name(*NORMS),
        "rows": wrong(rows.map(lambda row: [row])).filter(lambda value: value is not None),
        "n": wrong_whole(optional=True),
        "limits": wrong(st.integers(), but=dict).filter(lambda value: value is not None)
        | wrong_whole(optional=True).map(lambda limit: {"fgsm": limit}),
        "batch_size": wrong_whole(),
        "seed": wrong_whole(0, 2**32),
        "name": wrong(st.integers(), but=str),
        "data": wrong(st.integers(), but=str),
        "config": wrong(st.integers(), but=dict).filter(lambda value: value is not None),
        "report": wrong_function(),
        "processes": wrong(st.integers()),
    }
    aa_good = {"model": SmallNet().eval(), "images": IMAGES, "labels": LABELS, "eps": 0.1, "norm": "Linf", "seed": 0}
    aa_good |= {"version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}, "batch_size": 4}
    aa_good |= {"state_dir": None, "shard": None, "patience": 1.0, "report": None, "strict": False}
    aa_good |= {"return_adversarial": False}
    aa_bad = {name: bad[name] for name in ("model", "norm", "batch_size", "seed", "report")} | {
        "images": wrong_images(),
        "labels": wrong_labels(),
        "eps": wrong_eps() | st.just(0),
        "version": wrong_name("standard", "plus", "rand", "custom"),
        "attacks": wrong(st.just(["pgd"]), st.just(["apgd-ce", "apgd-ce"]), st.just([["apgd-ce"]])),
        "settings": wrong(
            st.just({"apgd": 3}), st.just({"x": {}}), wrong_whole().map(lambda value: {"apgd": {"n_restarts": value}})
        ).filter(lambda value: value is not None and value != {}),
        "state_dir": wrong_path().filter(lambda value: value is not None),
        "shard": wrong(st.integers(), st.sampled_from([(1,), (1, 1), (-1, 2), (0, 2), ("a", "b"), (0.5, 2)])).filter(
            lambda value: value is not None
        ),
        "patience": wrong_number(0),
        "strict": wrong_flag(),
        "return_adversarial": wrong_flag(),
    }
    sanity = {"model": MODEL, "split": SPLIT, "eps": 0.1, "n": 4, "steps": 1, "queries": 1, "batch_size": 4}
    judged = {"model": MODEL, "data": DATA, "eps": 0.1, "norm": "Linf", "n": 4, "version": "rand", "seed": 0}
    judged |= {"batch_size": 4, "fast": False, "shard": None, "name": "model", "more_data": False}
    judging = {name: bad[name] for name in ("model", "n", "batch_size", "seed", "name", "report", "config")}
    judging |= {name: aa_bad[name] for name in ("version", "norm", "shard")} | {"out": aa_bad["state_dir"]}
    judging["name"] = wrong(st.integers()).filter(lambda value: not isinstance(value, str) or not value.strip())
    judging |= {"data": wrong(st.integers()), "fast": wrong_flag(), "more_data": wrong_flag()}
    judging |= {"eps": aa_bad["eps"].filter(lambda value: value is not None)}
    asked = {name: bad[name] for name in ("model", "split", "n", "batch_size", "seed", "name", "data", "report")}
    asked |= {"eps": aa_bad["eps"], "norm": wrong_name("Linf", "L2"), "steps": wrong_whole(), "queries": wrong_whole()}
    asked |= {"standard": wrong_model().filter(lambda value: value is not None), "objectives": wrong_objectives()}
    asked |= {"autoattack": wrong(st.integers()).filter(lambda value: value is not None)}
    return {
        "benchmark": Door(robust_adapt.benchmark, judged, judging, quick=False),
        "check_sanity": Door(robust_adapt.check_sanity, sanity, asked, quick=False),
        "evaluate_model": Door(robust_adapt.evaluate_model, good, bad),
        "autoattack": Door(robust_adapt.autoattack, aa_good, aa_bad),
    }


def wrong_objectives():
    several = wrong(st.integers(), st.floats(), st.booleans(), but=(tuple, list, range, dict))
    return several | wrong_function().map(lambda value: [value])


def _boards(folder):
    record = robust_adapt.benchmark(
        MODEL.eval(),
        DATA,
        eps=8 / 255,
        n=4,
        version="custom",
        attacks=["square"],
        settings={"square": {"n_queries": 1}},
    )
    MODEL.load_state_dict(hooked_model().state_dict())
    _ = [
        setattr(one, "training", other.training)
        for one, other in zip(MODEL.modules(), hooked_model().modules(), strict=True)
    ]
    submission = {
        "folder": folder / "submission",
        "model": MODEL,
        "record": record,
        "name": "A2026B",
        "title": "A title",
    }
    submission |= {
        "authors": "A",
        "link": "https://a.org",
        "architecture": "SmallNet",
        "draft": True,
    }
    submission |= {"venue": "V", "checkpoint": "c", "code": "d", "source": "build = None"}
    text = wrong(st.integers(), st.floats()).filter(lambda value: not (isinstance(value, str) and value.strip()))
    outside = st.sampled_from(["../x", "a/../../b", "/tmp/x", "..", ".", "a\\..\\b", "", "a\0", "a b\n", "\x1b[31m"])
    share = wrong_number(0, 1)
    return {
        "place": Door(
            robust_adapt.place,
            {"accuracy": 0.5, "norm": "Linf", "interval": (0.4, 0.6), "more_data": False, "n": 100, "eps": "8/255"}
            | {"official": True, "version": "standard", "exact": True, "resnet18": True},
            {
                "accuracy": share,
                "norm": wrong_name("Linf", "L2"),
                "interval": wrong(st.integers(), st.sampled_from([(0.6, 0.4), (0.4,), ("a", "b"), (0, 1, 2)])).filter(
                    lambda value: value is not None
                ),
                "more_data": wrong_flag(),
                "n": wrong_whole(),
                "eps": wrong_eps(optional=True),
                "official": wrong_flag(),
                "version": wrong(st.integers(), but=str),
                "exact": wrong_flag(),
                "resnet18": wrong_flag(),
            },
        ),
        "submit": Door(
            robust_adapt.submit,
            submission,
            {
                "folder": wrong_path(),
                "model": wrong_model(),
                "record": wrong(st.integers()),
                "name": outside | wrong(st.integers(), but=str),
                "title": text,
                "authors": text,
                "link": text,
                "architecture": text,
                "venue": text,
                "checkpoint": text,
                "code": text,
                "source": text.filter(lambda value: value is not None),
                "draft": wrong_flag(),
            },
        ),
        "load_zoo_model": Door(
            robust_adapt.load_zoo_model,
            {
                "name": "Standard",
                "dataset": "cifar10",
                "threat": "Linf",
                "model_dir": folder / "nowhere",
                "offline": True,
            },
            {
                "name": wrong_name("Standard"),
                "dataset": wrong_name("cifar10", "cifar100", "imagenet"),
                "threat": wrong_name("Linf", "L2", "corruptions"),
                "model_dir": wrong_path() | st.just(folder / "nowhere"),
                "offline": wrong_flag(),
            },
            quick=False,
        ),
    }


def _runs(folder):
    names = wrong_name("digits", "cifar10") | st.sampled_from(
        [
            "folder:",
            "folder:/",
            "folder:a\0b",
            "folder:" + "x" * 5000,
            "folder:/dev/null",
            "folder:/proc/self/fd",
            "folder:\udcff",
        ]
    )
    junk_file = folder / "junk.pt"
    junk_file.write_bytes(b"<html>quota exceeded</html>")
    paths = wrong_path() | st.sampled_from([folder, junk_file, folder / "nowhere", "/dev/null", "x" * 5000, "\udcff"])
    config = tiny_config()

    def load_data(name, root, offline):
        robust_adapt.load_data(sections.DataConfig(name=name, root=root, offline=offline, validation=10))

    def train(out, config, data, resume, report=str):
        robust_adapt.train(config, out, data=data, resume=resume, report=report)

    other = [
        dataclasses.replace(config, model=sections.ModelConfig(name="ResNet81")),
        dataclasses.replace(config, model=sections.ModelConfig(name="no_module:x")),
        dataclasses.replace(config, model=sections.ModelConfig(width=4, weights=str(junk_file))),
        dataclasses.replace(config, attack=sections.AttackConfig(attacks=("pdg",))),
        dataclasses.replace(config, batch_size=5000),
        dataclasses.replace(config, device="cuda:9"),
        dataclasses.replace(config, loss=sections.LossConfig(consistency=1.0, layer="nowhere")),
    ]
    return {
        "load_data": Door(
            load_data,
            {"name": "digits", "root": "data", "offline": True},
            {"name": names, "root": wrong(st.integers(), but=str), "offline": wrong_flag()},
        ),
        "load_data()": Door(
            robust_adapt.load_data,
            {"config": sections.DataConfig(name="digits", validation=10)},
            {"config": wrong(st.integers())},
        ),
        "plan_run": Door(
            robust_adapt.plan_run,
            {"config": config, "probe": 0.0, "data": DATA},
            {
                "config": wrong(st.integers()),
                "probe": wrong_number(0),
                "data": wrong(st.integers()).filter(lambda value: value is not None),
            },
        ),
        "load_run": Door(robust_adapt.load_run, {}, {"folder": paths}),
        "train": Door(
            train,
            {"config": config, "out": folder / "run", "data": DATA, "resume": False},
            {
                "config": wrong(st.integers()) | st.sampled_from(other),
                "out": wrong_path()
                | st.sampled_from([junk_file, junk_file / "x", "/dev/null/x", "x" * 5000, "/proc/x"]),
                "data": wrong(st.integers()).filter(lambda value: value is not None),
                "resume": wrong_flag(),
                "report": wrong_function() | st.none(),
            },
            quick=False,  # it leaves a run
        ),
    }
