"""What a composition costs before it runs, how attacks are made, and the attack on our own regulariser."""

import warnings

import pytest
import torch
import torchattacks

from robust_adapt.attacks import ATTACKS, DiverseAttack, adaptive_objective, make_attack, plan_attacks, spec_of
from robust_adapt.errors import ConfigError
from robust_adapt.features import FeatureTap
from robust_adapt.losses import feature_consistency, margin

EPS = 8 / 255
TRIO = ["fgsm", "pgd", "upgd-margin"]


def compose(model, attacks, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* return the clean image where they fail")
        return DiverseAttack(model, attacks, **({"eps": EPS, "pick": "all"} | options))


@pytest.mark.parametrize(
    ("mode", "pick", "forward", "backward"),
    [
        ("split", "all", 7, 7),
        ("split", "random", 7, 7),
        ("split", [1, 3, 0], 7.75, 7.75),
        ("chain", "all", 21, 21),
        ("concat", "all", 21, 21),
        ("worst", "all", 24, 21),
        ("chain", "random", 14, 14),
        ("worst", "random", 16, 14),
        ("chain", [1, 3, 0], 7.75, 7.75),
    ],
)
def test_passes_by_hand(mode, pick, forward, backward):
    found = plan_attacks(TRIO, mode=mode, pick=pick)
    assert (found.forward, found.backward) == pytest.approx((forward, backward))
    assert found.exact
    assert found.attacks == {"fgsm": (1, 1), "pgd": (10, 10), "upgd-margin": (10, 10)}


@pytest.mark.parametrize("mode", ["split", "chain", "worst", "concat"])
def test_the_plan_is_what_a_call_costs(mode, channel_means, images, labels):
    attack, seen = compose(channel_means, TRIO, mode=mode, steps=3), []
    channel_means.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    attack(images, labels)
    assert sum(seen) / len(images) == pytest.approx(plan_attacks(attack).forward)
    assert plan_attacks(attack) == plan_attacks(TRIO, mode=mode, pick="all", steps=3)


def test_the_plan_reads_objects_and_leaves_queries_alone(small_net):
    found = plan_attacks(torchattacks.PGD(small_net, steps=7))
    assert (found.forward, found.backward) == (7, 7)
    assert plan_attacks("square", steps=3).forward == 5003 and plan_attacks("square").exact is False
    assert plan_attacks("deepfool", classes=3).backward == 150


def test_the_plan_refuses_what_it_does_not_know(small_net):
    with pytest.raises(ConfigError, match="^Expected a known attack, but got 'pdg'; did you mean 'pgd'?"):
        plan_attacks(["pdg"])
    with pytest.raises(ConfigError, match="^Expected an attack of the table, but got MultiAttack; its cost is not"):
        plan_attacks(torchattacks.MultiAttack([torchattacks.PGD(small_net), torchattacks.FGSM(small_net)]))


def test_eps_reaches_every_part_of_autoattack(small_net, images, labels):
    seen, attack = [], compose(small_net, ["autoattack"])
    for part in attack.attacks[0]._attacks.values():
        if hasattr(part, "eps"):
            part.forward = lambda x, y, part=part: seen.append(part.eps) or x
    attack.eps = 2 / 255
    attack(images, small_net(images).argmax(1))
    assert seen == [2 / 255] * 4


def test_eps_reaches_the_members_of_multi_attack(small_net, images, labels):
    multi = torchattacks.MultiAttack([torchattacks.PGD(small_net, eps=0.1, alpha=0.02), torchattacks.FGSM(small_net)])
    compose(small_net, [multi], eps=0.01)(images, labels)
    assert [part.eps for part in multi.attacks] == [0.01, 0.01] and multi.attacks[0].alpha == pytest.approx(0.002)


def test_a_variant_is_found_by_its_options(small_net):
    assert spec_of(torchattacks.Square(small_net, norm="L2")) is ATTACKS["square-l2"]
    assert spec_of(torchattacks.Square(small_net)) is ATTACKS["square"]
    assert spec_of(torchattacks.APGD(small_net)) is ATTACKS["apgd-success"]
    assert spec_of(type("Own", (torchattacks.PGD,), {})(small_net)) is ATTACKS["pgd"]
    assert spec_of(compose(small_net, ["pgd"])) is None


def test_options_are_those_of_the_class(small_net):
    assert make_attack("square", small_net, eps=EPS, n_queries=7).n_queries == 7
    with pytest.raises(ConfigError, match="^Expected a known option of 'pgd', but got 'queries'; Known: alpha, eps,"):
        make_attack("pgd", small_net, eps=EPS, queries=7)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_object_of_another_norm_is_refused(norm, small_net):
    other = "L2" if norm == "Linf" else "Linf"
    for cls in (torchattacks.APGD, torchattacks.AutoAttack):
        compose(small_net, [cls(small_net, norm=norm)], norm=norm)
        sentence = f"^Expected attacks of the {norm} ball, but got '{cls.__name__}', whose eps is of the {other} ball; "
        with pytest.raises(ConfigError, match=sentence):
            compose(small_net, [cls(small_net, norm=other)], norm=norm)


def test_apgd_ends_above_its_success_form(small_net, images):
    labels = (small_net(images).argmax(1) + 1) % 10  # all wrong already: nothing to do for the success form
    best, success = (compose(small_net, [name])(images, labels) for name in ("apgd", "apgd-success"))
    assert torch.equal(success, images)
    assert margin(small_net(best), labels).mean() > margin(small_net(images), labels).mean()


def test_the_l1_attack_reaches_the_surface_and_beats_chance(channel_means, images, labels):
    attack = compose(channel_means, ["apgd-l1"], eps=4.0, norm="L1", steps=20)
    adversarial = attack(images, labels)
    assert (adversarial - images).abs().sum((1, 2, 3)).mean() == pytest.approx(4, abs=0.08)
    gain = margin(channel_means(adversarial), labels) - margin(channel_means(images), labels)
    assert (gain > 0.5 * 10 * 4 / 64).all()  # by hand at most 10 * 4 / 64: all of it on one channel of 64 pixels


def test_a_stand_in_model_comes_back_as_it_was(small_net, channel_means, images, labels):
    small_net.train()
    compose(channel_means, [torchattacks.CW(small_net, steps=2)])(images, labels)
    assert small_net.training and all(p.grad is None and p.requires_grad for p in small_net.parameters())


def test_ours_is_saved_by_torchattacks(small_net, images, labels, tmp_path):
    small_net.train()
    small_net.norm.eval()
    compose(small_net, ["pgd"]).save([(images, labels)], str(tmp_path / "adversarial.pt"), verbose=False)
    assert torch.load(tmp_path / "adversarial.pt")["adv_inputs"].shape == images.shape
    assert small_net.training and not small_net.norm.training


# the attack on our own regulariser


def test_an_objective_costs_one_more_forward(channel_means, images, labels):
    objective, seen = adaptive_objective(lambda x: (channel_means(x), None), on="softmax"), []
    attack = compose(channel_means, ["fgsm", "pgd"], mode="concat", steps=3, objective=objective)
    channel_means.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    attack(images, labels)
    found = plan_attacks(["fgsm", "pgd"], mode="concat", pick="all", steps=3, adaptive=True)
    assert sum(seen) / len(images) == plan_attacks(attack).forward == found.forward == 6 and found.backward == 4


@pytest.mark.parametrize("name", ["bim", "mifgsm", "fgsm", "upgd-margin"])
def test_an_objective_without_r_is_the_attack_itself(name, small_net, images, labels):
    with FeatureTap(small_net) as tap:
        ours = compose(small_net, [name], objective=adaptive_objective(tap, weight=0.0))(images, labels)
    torch.testing.assert_close(ours, compose(small_net, [name])(images, labels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["split", "chain", "worst"])
def test_it_drives_the_features_apart(mode, small_net, images, labels):
    with FeatureTap(small_net) as tap:

        def distance(weight):
            objective = adaptive_objective(tap, weight=weight)
            attack = compose(small_net, ["pgd", "bim"], objective=objective, mode=mode, eps=0.1)
            return feature_consistency(tap(images)[1], tap(attack(images, labels))[1]).item()

        assert distance(1e4) > distance(0.0) > distance(-1e4)


@pytest.mark.parametrize("on", ["softmax", "kl"])
def test_it_takes_the_other_consistencies_and_an_eps_a_sample(on, small_net, images, labels):
    eps = torch.linspace(0, EPS, 6)
    objective = adaptive_objective(lambda x: (small_net(x), None), weight=4.0, on=on)
    adversarial = compose(small_net, ["pgd"], objective=objective, eps=eps)(images, labels)
    assert ((adversarial - images).abs().amax((1, 2, 3)) <= eps + 1e-6).all() and adversarial[1:].ne(images[1:]).any()


def test_who_takes_an_objective(small_net):
    objective = adaptive_objective(lambda x: (small_net(x), None), on="kl")
    with pytest.raises(ConfigError) as caught:
        compose(small_net, ["cw"], objective=objective)
    assert str(caught.value) == (
        "Expected an attack that can maximise another loss, but got 'cw'; "
        "take one of bim, fgsm, mifgsm, pgd, upgd, upgd-margin."
    )
    with pytest.raises(ConfigError, match="^Expected names of attacks with an objective, but got PGD; name it.$"):
        compose(small_net, [torchattacks.PGD(small_net)], objective=objective)
    with pytest.raises(ConfigError, match="^Expected a known consistency, but got 'logit'"):
        adaptive_objective(lambda x: (small_net(x), None), on="logit")
