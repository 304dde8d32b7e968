"""Robust in three balls at once: the runs of benchmarks/proof.py that train for it, judged in every ball.

    python -m benchmarks.union --data folder:cifar10-jpeg --width 16 --minutes 20 --seeds 0 --out runs/proof
    python -m benchmarks.union --out benchmarks/results/proof --table

A run is right on an image where it is right when clean and under AutoAttack's APGD-CE and APGD-T in Linf 8/255, L2 0.5
and L1 12, the balls of E-AT (Croce and Hein, 2022). Each is trained as in benchmarks/proof.py, at equal CPU time, and
judged on the first 500 test images that no choice has seen (OUT/NAME/union.json, with the flags of every ball).
"""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.proof import SEVERAL, Plan, bring, epochs_of, parser_of, run, unseen
from robust_adapt.ball import Ball
from robust_adapt.records import write_json
from robust_adapt.statistics import wilson

BALLS = tuple(map(Ball.of, ("Linf 8/255", "L2 0.5", "L1 12")))
RUNS = ("starts-class-wise", *SEVERAL)  # the first: Linf alone, the recipe `deepseek`
N = 500
APGD, ONCE = ("apgd-ce", "apgd-t"), {"apgd": {"n_restarts": 1}, "apgd_targeted": {"n_restarts": 1}}


def judge(plan: Plan, name: str, seed: int) -> None:
    """``union.json`` of a finished run."""
    folder = plan.folder(name, seed)
    if (folder / "union.json").exists() or not (folder / "done").exists():
        return
    from robust_adapt.auto_attack import Conditions, autoattack

    found, images, told = unseen(folder, N)
    records = {}
    for ball in BALLS:
        conditions = Conditions(ball, "custom", APGD, ONCE)
        state = folder / "union-state" / ball.norm
        records[str(ball)] = autoattack(found.model, images, conditions, state_dir=state).to_dict()
    write_json(folder / "union.json", told | {"n": len(images), "balls": records})


def row(plan: Plan, name: str, seed: int) -> dict[str, Any] | None:
    """Correct images of a run: clean, in each ball, in all of them; None where it is not judged."""
    path = plan.folder(name, seed) / "union.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    flags = {ball: record["flags"] for ball, record in found["balls"].items()}
    clean = next(iter(found["balls"].values()))["clean"]["correct"]
    counts = {"clean": clean} | {ball: sum(each) for ball, each in flags.items()}
    union = sum(map(all, zip(*flags.values(), strict=True)))
    return {"name": name, "seed": seed, "n": found["n"], "data": found["data"]} | counts | {"union": union}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Accuracy in percent, most of the union first, with its 95 % Wilson interval."""
    if not rows:
        return "No run is judged yet."
    columns = ["clean", *map(str, BALLS)]
    lines = ["| run | seed | " + " | ".join([*columns, "union"]) + " |", "|---|" + "--:|" * (len(columns) + 2)]
    for each in sorted(rows, key=lambda one: -one["union"]):
        n = each["n"]
        low, high = wilson(each["union"], n)
        shares = " | ".join(f"{100 * each[column] / n:.1f}" for column in columns)
        union = f"{100 * each['union'] / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        lines.append(f"| {each['name']} | {each['seed']} | {shares} | {union} |")
    note = (
        f"{rows[0]['n']} test images of {rows[0]['data']} that no choice has seen; right when clean and under APGD-CE"
    )
    return "\n".join([*lines, "", note + " and APGD-T of AutoAttack; union: in every ball."])


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser_of(__doc__, RUNS).parse_args(arguments)
    plan = Plan(options.data, options.width, options.minutes, options.out)
    for seed in options.seeds if not (options.table or options.home) else ():
        for name in options.runs:
            run(plan, name, seed, epochs_of(plan, name, seed, steps_per_epoch=options.training // plan.batch_size))
            judge(plan, name, seed)
    if options.home:
        bring(plan, options.runs, options.seeds, options.home)
    print(markdown([found for name in RUNS for seed in options.seeds if (found := row(plan, name, seed))]))


if __name__ == "__main__":
    main()
