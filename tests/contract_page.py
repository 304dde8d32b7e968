"""The contract of docs/upstream.md, and what torchattacks looked like when the table was written.

``python tests/contract_page.py docs/upstream.md`` runs tests/test_contract.py, the slow tests too, and writes that
part of the page.
"""

import re
import sys
from pathlib import Path

import pytest
import torch
import torchattacks

from robust_adapt.attacks import ATTACKS, NOT_ATTACKS

HEADING = "## What holds for every attack"
INTRODUCTION = """\
Every attack runs through `DiverseAttack`. *yes*: a test shows it. *refused*: the attack cannot, and a `ConfigError`
says so. *not run*: inductor compiles for long, so three attacks of different kinds stand for all. Passes are forwards
and backwards an image at the default number of steps and 10 classes. The tests count them with shortened attacks on
small images: exact rows must be met, `<=` is an upper bound where an attack stops early (JSMA's is for 3 x 32 x 32
images). *compiled* says that results and restored state are right on a model compiled so, not that no part of it fell
back to eager. A backward goes into the images only. Attacks are given contiguous
images and gradients. *an eps a sample*: attacks that know only one eps are called once for each distinct value.

`apgd` is APGD in its max-loss form (`perturb(best_loss=True)`): every sample ends at its point of highest loss.
`apgd-success` is what `torchattacks.APGD` does when called: the clean image where it fails. `upgd-margin` maximises the
unclamped margin. `autoattack` is torchattacks' with 10 steps where the official one has 100: no AutoAttack figure.
`apgd-l1` comes from pyautoattack. `nfgsm` leaves the ball by design, by up to 2 eps. The clean image where an attack
fails is no training example: `DiverseAttack` warns, and `strict=True` refuses.
"""

SIGNATURES = {
    "APGD": "model norm eps steps n_restarts seed loss eot_iter rho verbose",
    "APGDT": "model norm eps steps n_restarts seed eot_iter rho verbose n_classes",
    "AutoAttack": "model norm eps version n_classes seed verbose",
    "BIM": "model eps alpha steps",
    "CW": "model c kappa steps lr",
    "DIFGSM": "model eps alpha steps decay resize_rate diversity_prob random_start",
    "DeepFool": "model steps overshoot",
    "EADEN": "model kappa lr binary_search_steps max_iterations abort_early initial_const beta",
    "EADL1": "model kappa lr binary_search_steps max_iterations abort_early initial_const beta",
    "EOTPGD": "model eps alpha steps eot_iter random_start",
    "FAB": "model norm eps steps n_restarts alpha_max eta beta verbose seed multi_targeted n_classes",
    "FFGSM": "model eps alpha",
    "FGSM": "model eps",
    "GN": "model std",
    "JSMA": "model theta gamma",
    "Jitter": "model eps alpha steps scale std random_start",
    "LGV": "model trainloader lr epochs nb_models_epoch wd n_grad verbose attack_class kwargs",
    "MIFGSM": "model eps alpha steps decay",
    "MultiAttack": "attacks verbose",
    "NIFGSM": "model eps alpha steps decay",
    "OnePixel": "model pixels steps popsize inf_batch",
    "PGD": "model eps alpha steps random_start",
    "PGDL2": "model eps alpha steps random_start eps_for_division",
    "PGDRS": "model eps alpha steps noise_type noise_sd noise_batch_size batch_max",
    "PGDRSL2": "model eps alpha steps noise_type noise_sd noise_batch_size batch_max eps_for_division",
    "PIFGSM": "model max_epsilon num_iter_set momentum amplification prob",
    "PIFGSMPP": "model max_epsilon num_iter_set momentum amplification prob project_factor",
    "Pixle": "model x_dimensions y_dimensions pixel_mapping restarts max_iterations update_each_iteration",
    "RFGSM": "model eps alpha steps",
    "SINIFGSM": "model eps alpha steps decay m",
    "SPSA": "model eps delta lr nb_iter nb_sample max_batch_size",
    "SparseFool": "model steps lam overshoot",
    "Square": "model norm eps n_queries n_restarts p_init loss resc_schedule seed verbose",
    "TIFGSM": "model eps alpha steps decay kernel_name len_kernel nsig resize_rate diversity_prob random_start",
    "TPGD": "model eps alpha steps",
    "UPGD": "model eps alpha steps random_start loss decay eot_iter",
    "VANILA": "model",
    "VMIFGSM": "model eps alpha steps decay N beta",
    "VNIFGSM": "model eps alpha steps decay N beta",
}


class Collector:
    """A pytest plugin: the outcome of every test of the contract by attack and property."""

    def __init__(self):
        self.results = {}

    def pytest_runtest_logreport(self, report):
        ids = report.nodeid.partition("[")[2][:-1]
        attack = next((name for name in sorted(ATTACKS, key=len, reverse=True) if ids.endswith("-" + name)), None)
        if attack is not None and (report.when == "call" or report.failed):
            refused = "refused" in dict(report.user_properties)
            self.results[attack, ids[: -len(attack) - 1]] = "FAILS" if report.failed else "refused" * refused or "yes"


def versions():
    return f"torchattacks {torchattacks.__version__}, torch {torch.__version__.partition('+')[0]}"


def contract(results, made_with):
    """The contract: what each attack is, then attacks x properties, from the tests' own results."""
    lines = [HEADING, ""]
    lines += [f"Written by `python tests/contract_page.py docs/upstream.md` from its own results; {made_with}.", ""]
    lines += [INTRODUCTION, "### The table", ""]
    lines += row_of("name", "class", "kind", "norm", "eps", "step", "passes (F / B)", "needs", "where it fails")
    lines += row_of(*["---"] * 9)
    for name, spec in ATTACKS.items():
        lines += row_of(*facts(name, spec))
    lines += ["", "Not attacks: " + "; ".join(f"{name}, {why}" for name, why in NOT_ATTACKS.items()) + ".", ""]
    return "\n".join(lines + properties(results)) + "\n"


def facts(name, spec):
    passes = "{:g} / {:g}".format(*spec.passes(spec.default_steps, 10))
    step = "" if spec.step is None else f"`{spec.step}` = {spec.ratio:g} eps"
    needs = [*spec.needs, *([f"{spec.classes} classes"] if spec.classes > 2 else [])]
    fails = "clean image" if spec.fails_clean or name == "vanila" else "its last or strongest point"
    eps = f"`{spec.eps}`" if spec.eps else ""
    return (
        name,
        spec.cls.__name__,
        spec.kind,
        spec.norm,
        eps,
        step,
        ("" if spec.exact else "<= ") + passes,
        ", ".join(needs),
        fails,
    )


def properties(results):
    names = sorted({key for _, key in results}, key=list(key for _, key in results).index)
    lines = ["### Attacks x properties", ""]
    lines += [f"{number}. {name}" for number, name in enumerate(names, 1)] + [""]
    lines += row_of("attack", *range(1, len(names) + 1)) + row_of(*["---"] * (len(names) + 1))
    for attack in ATTACKS:
        lines += row_of(attack, *(results.get((attack, name), "not run") for name in names))
    return lines


def row_of(*cells):
    return ["| " + " | ".join(str(cell) for cell in cells) + " |"]


def committed(text):
    """(results, versions) of a page's contract."""
    properties = re.findall(r"^\d+\. (.+)$", text, re.MULTILINE)
    table = text[text.index("### Attacks x properties") :]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    results = {(row[0], name): cell for row in rows for name, cell in zip(properties, row[1:], strict=True)}
    return results, re.search(r"from its own results; (.+)\.$", text, re.MULTILINE).group(1)


def write(path, results):
    """Replace the contract of a page, from its heading to the end."""
    path.write_text(path.read_text().partition(HEADING)[0] + contract(results, versions()))


if __name__ == "__main__":
    collector = Collector()
    file = Path(__file__).with_name("test_contract.py")
    options = ["-q", "-p", "no:cacheprovider", "--durations=10", "-m", "not gpu", "-k", "not committed"]
    outcome = pytest.main([*options, str(file)], plugins=[collector])
    write(Path(sys.argv[1]), collector.results)
    sys.exit(outcome)
