"""Robust in three balls at once: the runs of benchmarks/proof.py that train for it, judged in every ball.

    python -m benchmarks.union --data folder:cifar10-jpeg --width 16 --minutes 12 --seeds 0 --out runs/union
    python -m benchmarks.union --out benchmarks/results/union --table

A run is right on an image where it is right when clean and in Linf 8/255, L2 0.5 and L1 12, the balls of E-AT (Croce
and Hein, 2022). Each is trained as in benchmarks/proof.py, at equal CPU time. Of every way in ``WAYS`` the form that is
best on the first 500 held-out images, under 20 steps in every ball (OUT/NAME/held-out.json), is judged under
AutoAttack's APGD-CE and APGD-T on the first 500 test images that no choice has seen (OUT/NAME/union.json, with the
flags of every ball). ``fast``: a search may run in bf16, what it finds is confirmed by the exact model.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.proof import SEVERAL, Plan, begin, bring, epochs_of, gain, gained, parser_of, run, unseen
from robust_adapt.ball import Ball
from robust_adapt.records import EpochRecord, EvaluationRecord, read_lines, write_json
from robust_adapt.statistics import mcnemar, wilson

if TYPE_CHECKING:
    from robust_adapt.auto_attack import Conditions

BALLS = tuple(map(Ball.of, ("Linf 8/255", "L2 0.5", "L1 12")))
WAYS = {
    "Linf alone, the recipe `deepseek`": ("starts-class-wise",),
    "L2 alone": ("l2",),
    "L1 alone": ("l1-2", "l1-4", "l1-10"),
    "one ball a batch, as in E-AT": ("e-at-2", "e-at-4", "e-at-10"),
    "one ball a batch, Linf or L2": ("e-at-linf-l2-2",),
    "every ball in every batch, the recipe `union`": ("union-2", "union-4", "union-two-4", "union-linf-l2-2"),
}
RUNS = ("starts-class-wise", *SEVERAL)
HELD_OUT = ("Clean", "PGD-20", "CW-Linf-20", "PGD-L2-20", "APGD-L1-20")
N = 500
IN_L1 = {"apgd": {"use_largereps": 1}, "apgd_targeted": {"use_largereps": 1, "n_target_classes": 5}}


def held_out(plan: Plan, name: str, seed: int) -> float:
    """Accuracy of a finished run in the union of the balls on held-out images, measured where it is missing."""
    folder = plan.folder(name, seed)
    if not (folder / "held-out.json").exists():
        import torch

        from robust_adapt.data import load_data
        from robust_adapt.evaluation import evaluate_model
        from robust_adapt.runs import load_run

        torch.set_num_threads(1)
        found = load_run(folder)
        data = load_data(found.config.data)
        record = evaluate_model(found.model, data.validation, BALLS, rows=HELD_OUT, n=N)
        told = {"model": folder.name, "data": data.title, "split": "held out", "config": found.config.shareable()}
        write_json(folder / "held-out.json", dataclasses.replace(record, **told))
    record = EvaluationRecord.from_dict(json.loads((folder / "held-out.json").read_text()))
    return record.worst_case.accuracy


def chosen(plan: Plan, seeds: Sequence[int], runs: Sequence[str] = RUNS) -> list[str]:
    """Of every way the form that is best on held-out images, by the mean over the seeds; of those that are measured at
    each of them. That of our own way is the last."""
    measured = [name for name in runs if all((plan.folder(name, seed) / "held-out.json").exists() for seed in seeds)]
    ways = [[name for name in forms if name in measured] for forms in WAYS.values()]
    return [max(forms, key=lambda name: sum(held_out(plan, name, seed) for seed in seeds)) for forms in ways if forms]


def conditions(ball: Ball) -> "Conditions":
    """APGD-CE and APGD-T as AutoAttack's standard version sets them in a ball, on ``fast_copy`` of the model."""
    from robust_adapt.auto_attack import Conditions

    settings = IN_L1 if ball.norm == "L1" else {"apgd": {"n_restarts": 1}}
    return Conditions(ball, "custom", ("apgd-ce", "apgd-t"), settings, fast=True)


def judge(plan: Plan, name: str, seed: int) -> None:
    """``union.json`` of a finished run."""
    folder = plan.folder(name, seed)
    if (folder / "union.json").exists() or not (folder / "done").exists():
        return
    from robust_adapt.auto_attack import autoattack

    found, images, told = unseen(folder, N)
    records = {}
    for ball in BALLS:
        state = folder / "union-state" / ball.norm
        records[str(ball)] = autoattack(found.model, images, conditions(ball), state_dir=state).to_dict()
    write_json(folder / "union.json", told | {"n": len(images), "balls": records})


def row(plan: Plan, name: str, seed: int) -> dict[str, Any] | None:
    """Correct images of a run: clean, in each ball, in all of them; None where it is not judged."""
    folder = plan.folder(name, seed)
    if not (folder / "union.json").exists():
        return None
    found = json.loads((folder / "union.json").read_text())
    last = read_lines(folder / "epochs.jsonl", EpochRecord)[-1]
    flags = {ball: record["flags"] for ball, record in found["balls"].items()}
    clean = next(iter(found["balls"].values()))["clean"]["correct"]
    counts = {"clean": clean} | {ball: sum(each) for ball, each in flags.items()}
    right = list(map(all, zip(*flags.values(), strict=True)))
    arithmetic = [each["fingerprint"].get("arithmetic", "exact") for each in found["balls"].values()]
    about = {"name": name, "seed": seed, "n": found["n"], "data": found["data"], "arithmetic": arithmetic}
    validation = last.validation_cpu_seconds
    minutes = {"cpu": last.cpu_seconds / 60, "training": validation and (last.cpu_seconds - validation) / 60}
    about |= {"steps": last.step, "minutes": minutes}
    return about | counts | {"union": right}


def markdown(plan: Plan, seeds: Sequence[int]) -> str:
    """Accuracy in percent, best on held-out images first, with its 95 % Wilson interval and the last of ``chosen``
    above each at the same seed, image by image (McNemar); then the forms not chosen, and runs that are not judged."""
    names = sorted(choice := chosen(plan, seeds), key=lambda name: -sum(held_out(plan, name, seed) for seed in seeds))
    every = {(name, seed): row(plan, name, seed) for name in names for seed in seeds}
    rows = [found for found in every.values() if found]
    if not rows:
        return "No run is judged yet."
    first = {seed: every[choice[-1], seed] for seed in seeds}
    columns = ["clean", *map(str, BALLS)]
    head = [
        "run",
        "seed",
        "held out",
        *columns,
        "union",
        f"{choice[-1]} above it, points",
        "p",
        "steps",
        "CPU minutes (training)",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for each in rows:
        n, union = each["n"], sum(each["union"])
        low, high = wilson(union, n)
        cells = [each["name"], each["seed"], f"{100 * held_out(plan, each['name'], each['seed']):.1f}"]
        cells += [f"{100 * each[column] / n:.1f}" for column in columns]
        cells.append(f"{100 * union / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        ours = first[each["seed"]]
        cells += ["", ""]
        if ours is not None and ours is not each:
            found = mcnemar(ours["union"], each["union"])  # the same images
            low, high = 100 * found.low, 100 * found.high
            cells[-2:] = [f"{100 * found.difference:+.1f} [{low:+.1f}, {high:+.1f}]", f"{found.p_value:.2g}"]
        minutes = each["minutes"]
        cells += [
            each["steps"],
            f"{minutes['cpu']:.0f}" + (f" ({minutes['training']:.1f})" if minutes["training"] else ""),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    others = [
        f"{name} {100 * held_out(plan, name, seed):.1f}"
        for name in RUNS
        for seed in seeds
        if (plan.folder(name, seed) / "held-out.json").exists() and name not in names
    ]
    arithmetic = " and ".join(dict.fromkeys(itertools.chain(*(each["arithmetic"] for each in rows))))
    note = (
        f"{rows[0]['n']} test images of {rows[0]['data']} that no choice has seen; right when clean and under APGD-CE "
        f"and APGD-T of AutoAttack ({arithmetic}); union: in every ball. Held out: right on held-out training images "
        "in every ball, under 20 steps of PGD, of PGD on the margin loss, of PGD in L2 and of APGD in L1. CPU minutes "
        "include the validation of every epoch, those of training alone are in brackets, where they were recorded."
    )
    text = [*lines, "", note, *([f"Not chosen, held out: {', '.join(others)}."] if others else [])]
    shares: dict[str, Any] = {name: {"judged": {}} for name in names}
    for each in rows:
        found = {"union": sum(each["union"]) / each["n"], "clean": each["clean"] / each["n"]}
        shares[each["name"]]["judged"][each["seed"]] = found
    for name in names if len(seeds) > 1 else ():
        gains = [gain(shares[choice[-1]], shares[name], what) for what in ("union", "clean")]
        if name != choice[-1] and gains[0] and gains[1]:
            told = f"union {gained(gains[0])}, clean {gained(gains[1])}"
            text.append(f"{choice[-1]} above {name}, points, {len(gains[0][0])} seeds: {told}.")
    missing = [f"{name}, seed {seed}" for (name, seed), found in every.items() if found is None]
    return "\n".join([*text, *([f"Not judged: {'; '.join(missing)}."] if missing else [])])


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser_of(__doc__, RUNS).parse_args(arguments)
    plan = Plan(options.data, options.width, options.minutes, options.out)
    training, seeds = begin(plan, options)
    for seed in seeds if training else ():
        for name in options.runs:
            run(plan, name, seed, epochs_of(plan, name, seed, steps_per_epoch=options.training // plan.batch_size))
            if (plan.folder(name, seed) / "done").exists():
                held_out(plan, name, seed)
    if training:
        for name, seed in itertools.product(chosen(plan, seeds, options.runs), seeds):
            judge(plan, name, seed)
    if options.home:
        plan, seeds = bring(plan, options.runs, seeds, options.home)
    print(markdown(plan, seeds))


if __name__ == "__main__":
    main()
