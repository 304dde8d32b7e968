"""Which budget gives an article's numbers: accuracy of a standard and of a robust model over eps, attack by attack.

    python -m benchmarks.budget STANDARD ROBUST --data folder:cifar10-jpeg --n 500 --out benchmarks/results/budget

STANDARD, ROBUST: run folders with weights. Each attack is measured at every eps of ``EPS``, FGSM and PGD and the margin
loss in the ball; CW (torchattacks', L2, unbounded) once with few and once with many steps, and its images projected on
the ball of every eps. Then, for each of the article's six figures, the eps at which the curve meets it. Curves that are
finished are kept in OUT/budget.json, so that an interrupted call goes on. ``--draw`` draws and prints what there is.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from robust_adapt import Ball, load_run, upstream
from robust_adapt.answers import are_right
from robust_adapt.attacks.member import Member
from robust_adapt.attacks.projection import project
from robust_adapt.data import Split, load_data
from robust_adapt.evaluation import Row
from robust_adapt.evaluation.batches import Trial
from robust_adapt.models import weights_hash
from robust_adapt.records import write_json
from robust_adapt.reporting import COLOURS

KINDS = ("standard", "robust")
EPS = ("0", "1/255", "2/255", "4/255", "6/255", "8/255", "10/255", "12/255", "0.05", "16/255")
SIZES = tuple(Ball("Linf", eps).eps for eps in EPS)
ATTACKS = {
    "FGSM": Row("fgsm"),
    "PGD, 3 steps of eps/2": Row("pgd", 3, 0.5),
    "PGD, 20 steps of eps/4": Row("pgd", 20, 0.25),
    "margin PGD, 3 steps of eps/2": Row("upgd-margin", 3, 0.5),
    "margin PGD, 20 steps of eps/4": Row("upgd-margin", 20, 0.25),
    "CW, 5 steps, in the ball": Row("cw", 5, bounded=False),
    "CW, 50 steps, in the ball": Row("cw", 50, bounded=False),
}
ARTICLE = {"FGSM": (0.142, 0.487), "PGD": (0.097, 0.375), "CW": (0.053, 0.291)}  # standard, robust


def family(attack: str) -> str:
    """Which of the article's three attacks a curve may stand for; its CW is defined nowhere."""
    return "CW" if attack.startswith(("CW", "margin")) else attack.split(",")[0]


def curve(model: torch.nn.Module, split: Split, row: Row) -> dict[str, Any]:
    """Numbers of images that are right when clean and at each eps; of an unbounded attack also under its own images."""
    begin = time.process_time()
    member = Member.named(str(row.attack), model, "Linf", steps=row.steps, step_ratio=row.step_ratio)

    def question(images: Tensor, labels: Tensor) -> Tensor:
        with member.ready():
            if row.bounded:
                attacked = [member.run(images, labels, eps) if eps else images for eps in SIZES]
            else:
                free = member.attack(images, labels)
                attacked = [*(project(free, images, eps, norm="Linf") for eps in SIZES), free]
        with torch.no_grad():
            right = torch.stack([are_right(model(each), labels) for each in attacked])
        return (right & right[0]).sum(1)  # the first are the clean ones

    answers = Trial(model, Ball("Linf", "8/255"), batch_size=100).ask(split, question)
    right = torch.stack(answers).sum(0).tolist()
    unbounded = {} if row.bounded else {"unbounded": right[-1]}
    return {"right": right[: len(EPS)], **unbounded, "cpu_seconds": round(time.process_time() - begin, 1)}


def crossing(right: Sequence[int], share: float, n: int) -> float | None:
    """The eps, in 1/255, at which a falling curve meets a share, between its points; None where it does not."""
    points = [(255 * eps, count / n) for eps, count in zip(SIZES, right, strict=True)]
    for (low, above), (high, below) in itertools.pairwise(points):
        if above >= share > below:
            return low + (high - low) * (above - share) / (above - below)
    return None


def measure(folders: dict[str, Path], name: str, n: int, path: Path) -> dict[str, Any]:
    """All curves of both models, each written as soon as it is there."""
    data = load_data(name)
    split = data.test.first(n)
    models = {kind: load_run(folder).model for kind, folder in folders.items()}
    stands_on = {
        "data": data.title,
        "n": n,
        "images_sha256": split.sha256,
        "eps": list(EPS),
        "seed": 0,
        "weights_sha256": {kind: weights_hash(model) for kind, model in models.items()},
    }
    found = json.loads(path.read_text()) if path.exists() else {}
    if {key: found.get(key) for key in stands_on} != stands_on:
        where = {"device": "cpu", "threads": torch.get_num_threads()}
        found = stands_on | where | {"versions": upstream.versions(), "commit": upstream.commit(), "curves": {}}
    for kind, model in models.items():
        for attack, row in ATTACKS.items():
            curves = found["curves"].setdefault(kind, {})
            if attack not in curves:
                curves[attack] = curve(model, split, row)
                write_json(path, found)
    return found


def markdown(found: dict[str, Any]) -> str:
    """For each attack that may be the article's, the eps at which either model has the article's figure."""
    n = found["n"]
    lines = ["| attack | article, standard | met at | article, robust | met at |", "|---|--:|--:|--:|--:|"]
    for name in ATTACKS:
        cells = [name]
        for kind, share in zip(KINDS, ARTICLE[family(name)], strict=True):
            met = crossing(found["curves"][kind][name]["right"], share, n)
            cells += [f"{100 * share:.1f} %", "nowhere" if met is None else f"{met:.1f}/255"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """A panel an attack of the article: accuracy over eps, and its two figures as lines."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    families = list(ARTICLE)
    for axis, one in zip(figure.subplots(1, 3, sharey=True), families, strict=True):
        names = [name for name in ATTACKS if family(name) == one]
        for kind, colour, share in zip(KINDS, COLOURS, ARTICLE[one], strict=False):
            for name, dashes in zip(names, ("-", "--", "-.", ":"), strict=False):
                shares = [100 * count / found["n"] for count in found["curves"][kind][name]["right"]]
                axis.plot([255 * eps for eps in SIZES], shares, dashes, color=colour, label=f"{kind}: {name}")
            axis.axhline(100 * share, color=colour, linewidth=0.8, alpha=0.6)
            axis.annotate(f"article, {kind}: {100 * share:.1f}", (16, 100 * share + 1), ha="right", fontsize=8)
        axis.set(title=one, xlabel="eps, 1/255", ylim=(0, 100), xlim=(0, 16), xticks=range(0, 17, 4))
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    figure.axes[0].set_ylabel(f"accuracy, %, n = {found['n']}")
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in KINDS:
        parser.add_argument(kind, type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/budget"))
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "budget.json"
    folders = {kind: getattr(options, kind) for kind in KINDS}
    found = json.loads(path.read_text()) if options.draw else measure(folders, options.data, options.n, path)
    draw(found, options.out / "budget.png")
    print(markdown(found))


if __name__ == "__main__":
    main()
