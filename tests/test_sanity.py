"""Ways of masking gradients and broken models are caught, a soundly trained model passes."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_adapt.attacks import crafting, make_attack
from robust_adapt.ball import Ball
from robust_adapt.cli import main
from robust_adapt.config import DataConfig, LossConfig, ModelConfig
from robust_adapt.data import Split, load_data
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.runs import train
from robust_adapt.sanity import CHECKS, Effort, Evidence, SanityRecord, check_sanity
from robust_adapt.sanity.run import STATUSES

EPS, N = 0.15, 60
BALL = Ball("Linf", EPS)


class Sound(nn.Module):
    """A small net, with a place for what masks gradients before and behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
        self.before, self.behind = nn.Identity(), nn.Identity()

    def forward(self, images):
        return self.behind(self.head(torch.relu(self.first(self.before(images).flatten(1)))))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(name="digits", validation=100))


@pytest.fixture(scope="module")
def trained(digits):
    """The state of a net after some seconds of adversarial training, in float64: nearly the same net everywhere."""
    torch.manual_seed(0)
    model = Sound().double()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    attack = make_attack("pgd", model, eps=EPS, steps=3)
    images, labels = digits.train.tensors()
    images = images.double()
    for step in range(300):
        chosen = torch.randint(len(images), (128,), generator=torch.Generator().manual_seed(step))
        with crafting(model, seed=step):
            adversarial = attack(images[chosen], labels[chosen])
        optimizer.zero_grad()
        functional.cross_entropy(model(adversarial), labels[chosen]).backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture
def model(trained):
    model = Sound()
    model.load_state_dict(trained)
    return model.eval()


def check(model, digits, ball=BALL, **options):
    """The options of ``Effort`` and ``Evidence`` in one."""
    known = {name: options.pop(name) for name in ("standard", "objectives") if name in options}
    effort = Effort(**({"n": N, "steps": 10, "queries": 100} | options))
    record = check_sanity(model, digits.test, ball, effort=effort, evidence=Evidence(**known))
    return record, {check.name: check for check in record.checks}


def test_a_sound_model_passes(model, digits):
    record, checks = check(model, digits, standard=model)
    assert {name: one.status for name, one in checks.items() if one.status != "pass"} == {"adaptive attack": "skip"}
    assert record.verdict == "pass" and list(checks) == list(CHECKS)
    assert checks["PGD minus AutoAttack"].values["autoattack"] > 0.5  # robust indeed
    assert SanityRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert all(not one.todo for one in record.checks if one.status == "pass")


def test_the_largest_seed_is_taken(model, digits):
    record, _ = check(model, digits, n=4, steps=2, queries=2, seed=2**32 - 1)
    assert record.seed == 2**32 - 1


def test_a_quantised_input_is_caught(model, digits):
    model.before = Call(lambda images: torch.round(images * 6) / 6)
    record, checks = check(model, digits)
    assert record.verdict == "fail"
    assert checks["zero gradient"].figure == "100.0 % of the samples have a zero gradient"
    assert checks["zero gradient"].status == "fail"


def test_scaled_logits_are_caught(model, digits):
    model.behind = Call(lambda logits: 1e4 * logits)
    _, checks = check(model, digits)
    caught = {name for name, one in checks.items() if one.status == "fail"}
    assert caught >= {"zero gradient", "PGD minus AutoAttack"}


def test_a_randomised_layer_is_caught(model, digits):
    model.before = Call(lambda images: images + 0.2 * torch.randn_like(images))
    _, checks = check(model, digits)
    assert checks["deterministic"].status == "fail"
    assert checks["deterministic"].todo.startswith("Judge the expectation")


def test_probabilities_and_training_mode_are_caught(model, digits):
    model.behind = nn.Softmax(dim=1)
    model.train()
    _, checks = check(model, digits, n=20, queries=5)
    assert checks["logits"].status == checks["eval mode"].status == "fail"
    assert checks["eval mode"].figure == "5 modules in training mode" and model.training


def test_the_transfer_check_sees_what_a_masked_model_hides(model, trained, digits):
    standard = Sound()
    standard.load_state_dict(trained)
    model.before = Call(lambda images: torch.round(images * 16) / 16)
    _, checks = check(model, digits, standard=standard)
    assert checks["white-box against transfer"].status == "fail"


def quick(model, digits, **options):
    return check(model, digits, **({"n": 6, "steps": 1, "queries": 2} | options))


NO_GRADIENT = "cannot be asked: the logits have no gradient with respect to the images"
ATTACKING = ("falls with eps", "white-box against Square", "random noise", "PGD minus AutoAttack")


@pytest.mark.parametrize(
    ("before", "figure", "others"),
    [
        (
            lambda images: images.detach(),
            "100.0 % of the samples have no gradient: the logits are cut off from the images",
            NO_GRADIENT,
        ),
        (
            lambda images: torch.from_numpy(images.numpy()),
            "cannot be asked: the gradient fails: Can't call numpy() on Tensor that requires grad. "
            "Use tensor.detach().numpy() instead.",
            None,
        ),
        (
            lambda images: images + (images - images.detach()).abs().sqrt(),
            "100.0 % of the samples have a zero gradient",  # infinite, which is as good as none
            None,
        ),
    ],
    ids=["detached", "numpy", "infinite"],
)
def test_a_model_without_gradients_fails(model, digits, before, figure, others):
    model.before = Call(before)
    record, checks = quick(model, digits)
    assert record.verdict == checks["zero gradient"].status == "fail"
    assert checks["zero gradient"].figure == figure
    if others is not None:
        assert {(checks[name].status, checks[name].figure) for name in ATTACKING} == {("fail", others)}
        assert checks["falls with eps"].todo == "Mend this in the model, then ask again."
        assert checks["logits"].status == checks["alone as in a batch"].status == "pass"


def test_logits_that_are_not_finite_fail(model, digits):
    images, _ = digits.test.first(6).tensors()
    level = model(images)[:, 0].sort().values[3]
    model.behind = Call(lambda logits: torch.where(logits[:, :1] < level, torch.nan, logits))
    record, checks = quick(model, digits)
    assert record.verdict == "fail"
    assert checks["logits"].figure == "3 of 6 images give NaN or infinity" and checks["logits"].status == "fail"
    asked = {checks[name].figure for name in (*ATTACKING, "deterministic", "zero gradient", "clean accuracy")}
    assert asked == {"cannot be asked: 3 of 6 images give NaN or infinity"}
    assert SanityRecord.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record


def test_logits_that_are_finite_on_clean_images_only_count_as_fallen(model, digits):
    images, _ = digits.test.first(6).tensors()
    on_grid = lambda inputs: ((inputs * 255).round() - inputs * 255).abs().amax((1, 2, 3)) < 1e-3  # noqa: E731
    model.before = Call(lambda inputs: torch.where(on_grid(inputs).view(-1, 1, 1, 1), inputs, inputs * torch.nan))
    _, checks = quick(model, digits)
    assert model(images).isfinite().all() and checks["clean accuracy"].values["clean"] > 0
    assert checks["random noise"].values["noise"] == 0


@pytest.mark.parametrize(
    ("behind", "figure"),
    [
        (lambda logits: logits - logits.mean(0), "the rest of the batch changes an image's logits by "),
        (lambda logits: logits + logits.flip(0), "the rest of the batch changes an image's logits by "),
        (
            nn.BatchNorm1d(10, track_running_stats=False),
            "cannot be asked: a batch of 1 fails: Expected more than 1 value per channel when training, "
            "got input size torch.Size([1, 10])",
        ),
        (
            lambda logits: logits.squeeze(),
            "cannot be asked: a batch of 1 fails: Expected a model that returns logits (1, classes >= 2), "
            "but got (10,); wrap it in one.",
        ),
    ],
    ids=["mean", "neighbour", "batch-norm", "squeeze"],
)
def test_a_forward_that_depends_on_the_batch_fails(model, digits, behind, figure):
    model.behind = Call(behind).eval()
    record, checks = quick(model, digits)
    one = checks["alone as in a batch"]
    assert record.verdict == one.status == "fail" and one.figure.startswith(figure)
    last_batch_of_one, checks = quick(model, digits, n=3, batch_size=2)
    assert last_batch_of_one.verdict == checks["alone as in a batch"].status == "fail"


def test_convolutions_and_a_batch_size_of_one_are_alone_as_in_a_batch(digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    checks = quick(model, digits, batch_size=1)[1]
    assert checks["alone as in a batch"].status == "pass" and checks["alone as in a batch"].values["change"] < 1e-5


NO_LOGITS = "Expected a model that returns logits (6, classes >= 2), but got"
WRAP = "wrap it in one that returns `{}`, where `out` is what this one returns."


@pytest.mark.parametrize(
    ("behind", "sentence"),
    [
        (
            lambda logits: (logits, logits),
            f"{NO_LOGITS} tuple; {WRAP.format('out if torch.is_tensor(out) else out[0]')}",
        ),
        (
            lambda logits: logits[:, :, None],
            f"{NO_LOGITS} (6, 10, 1); {WRAP.format('out.flatten(1)')}",
        ),
        (
            lambda logits: logits[:, :1],
            f"{NO_LOGITS} (6, 1); {WRAP.format('torch.nn.functional.pad(out.reshape(-1, 1), (1, 0))')}",
        ),
        (
            lambda logits: logits.double(),
            f"Expected float32 logits, but got torch.float64; {WRAP.format('out.float()')}",
        ),
        (
            lambda logits: logits[:, :5],
            "Expected `labels` of 5 classes, numbers 0 to 4, but got labels from 0 to 9; count classes from 0.",
        ),
    ],
    ids=["tuple", "3d", "one class", "float64", "labels"],
)
def test_models_that_cannot_be_judged_are_refused(model, digits, behind, sentence):
    labels = torch.tensor([0, 9, 1, 2, 3, 4])
    split = Split(digits.test.images[:6], labels)
    model.behind = Call(behind)
    with pytest.raises((ConfigError, DataError)) as caught:
        check_sanity(model, split, BALL)
    assert str(caught.value) == sentence


def test_a_double_model_and_images_of_another_size_are_refused(model, digits):
    for wrong, said, mend in (
        (
            model.double(),
            "mat1 and mat2 must have the same dtype, but got Float and Double",
            "use model.to('cpu', torch.float32).",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(5, 10)),
            "mat1 and mat2 shapes cannot be multiplied (6x64 and 5x10)",
            "look at their shape and type, and at the device of both.",
        ),
    ):
        with pytest.raises(DataError) as caught:
            quick(wrong, digits)
        assert str(caught.value).replace("addmm: ", "") == (  # which newer versions of torch say
            f"Expected images that the model takes, but got a Tensor of shape (6, 1, 8, 8), and it says: {said}; {mend}"
        )


@pytest.mark.parametrize(
    ("behind", "sentence"),
    [
        (
            lambda logits: torch.from_numpy(logits.numpy()),
            "Expected `standard` with a finite, non-zero gradient, but got none on the first batch; give a model that "
            "was trained without any defence.",
        ),
        (
            lambda logits: logits[:, :3],
            "Expected `standard` with the 10 classes of the model, but got 3; train one on the same data.",
        ),
        (
            lambda logits: logits.detach(),
            "Expected `standard` with a finite, non-zero gradient, but got none on the first batch; give a model that "
            "was trained without any defence.",
        ),
        (
            lambda logits: logits * torch.nan,
            "Expected `standard` with a finite, non-zero gradient, but got none on the first batch; give a model that "
            "was trained without any defence.",
        ),
    ],
    ids=["numpy", "classes", "detached", "nan"],
)
def test_a_standard_model_that_cannot_be_attacked_is_refused(model, digits, behind, sentence):
    standard = Sound()
    standard.behind = Call(behind)
    with pytest.raises(ConfigError) as caught:
        quick(model, digits, standard=standard)
    assert str(caught.value) == sentence


def test_few_images_and_models_right_by_chance_warn(model, digits):
    record, checks = quick(model, digits, n=20, steps=10)
    assert {name for name, one in checks.items() if one.status == "warn"} == {"clean accuracy"}
    assert record.verdict == "warn"
    assert checks["clean accuracy"].todo == "Ask about 50 images or more: the intervals of 20 hide almost anything."
    _, checks = quick(model, digits, n=1)
    assert checks["clean accuracy"].status == "warn"
    assert checks["alone as in a batch"].figure == "one image is no batch"
    model.behind = Call(lambda logits: -logits)  # wrong on nearly every image
    _, checks = quick(model, digits, n=50)
    assert checks["clean accuracy"].status == "warn"
    assert checks["clean accuracy"].todo == (
        "Look at the model and its labels: a model that is right by chance has nothing to lose to an attack."
    )


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        (
            {"ball": Ball("L1", EPS)},
            ConfigError,
            "Expected a known norm of the sanity checks, but got 'L1'; did you mean 'L2'?",
        ),
        (
            {"ball": Ball("Linf", 0)},
            ConfigError,
            "Expected `eps` > 0, but got 0; without a perturbation there is nothing to check.",
        ),
        ({"n": 0}, ConfigError, "Expected `n` as a whole number >= 1, but got 0; give one such as 1."),
    ],
)
def test_what_is_refused(model, digits, options, kind, sentence):
    with pytest.raises(kind) as caught:
        check(model, digits, **options)
    assert str(caught.value).startswith(sentence)


def test_a_run_is_questioned_with_its_own_regulariser(tmp_path, capsys):
    config = on_digits(recipe("deepseek", loss=LossConfig(consistency=2.0, consistency_on="softmax")), epochs=0.1)
    config = dataclasses.replace(config, model=ModelConfig(width=2))
    train(config, tmp_path / "run")
    flags = ["--rows", "Clean", "--n", "20", "--sanity", "--sanity-n", "6", "--standard", str(tmp_path / "run")]
    assert main(["evaluate", str(tmp_path / "run"), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Is this robustness real? 6 images of digits" in lines
    record = SanityRecord.from_dict(json.loads((tmp_path / "run" / "sanity.json").read_text()))
    assert f"Verdict: {record.verdict}" in lines
    statuses = {check.name: check.status for check in record.checks}
    for number, (name, status) in enumerate(statuses.items(), 1):  # while it runs, without a terminal
        assert f"{name}: {status} ({number} of {len(CHECKS)} checks)" in lines
    assert "skip" not in statuses.values() and record.verdict == max(statuses.values(), key=STATUSES.index)


def test_it_works_in_l2(model, digits):
    record, _ = check(model, digits, Ball("L2", 0.5), n=20, steps=5, queries=20)
    assert {check.name for check in record.checks if check.status == "fail"} == set()
