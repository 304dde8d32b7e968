"""Pages that are hard to get right, of records made by hand: hostile names, 100 classes and 3 runs, gaps, NaN."""

import dataclasses
import math

import numpy as np

from robust_adapt import reporting
from robust_adapt.auto_attack.records import AutoAttackRecord, AutoAttackRow, Finding
from robust_adapt.ball import Ball
from robust_adapt.evaluation import EpsCurve
from robust_adapt.leaderboard import BenchmarkRecord, place, published
from robust_adapt.records import AttackRecord, EpochRecord, EvaluationRecord, RunRecord, StepRecord
from robust_adapt.reporting.dossier import Case, Prediction
from robust_adapt.sanity import SanityRecord
from robust_adapt.sanity.run import SanityCheck
from robust_adapt.statistics import wilson

EPS, HASH = 8 / 255, "ab" * 32
HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\x1b[31m\u202e"
LONG = "a-very-long-name-without-any-place-to-break-" * 4
JUDGED = {"norm": "Linf", "eps": EPS, "seed": 0, "device": "cpu", "versions": {"torch": "2"}, "commit": None}


def row(name, correct, n=200, eps=EPS, norm="Linf", **changes):
    low, high = wilson(correct, n)
    values = {
        "name": name, "norm": norm, "eps": eps, "steps": 20, "step_size": 2 / 255, "note": "", "n": n,
        "correct": correct, "accuracy": correct / n, "low": low, "high": high, "success_rate": 0.5,
        "unchanged_share": 0.0, "mean_l2": 0.5, "seconds": 1.0, "flags": "1" * correct + "0" * (n - correct),
    }  # fmt: skip
    return AttackRecord(**(values | changes))


def evaluation(name, correct, classes=(), n=200, **changes):
    attacks = [row("Clean", n * 4 // 5, n, None, ""), row("FGSM", correct, n), row("PGD-20", correct, n)]
    values = {
        **JUDGED, "model": name, "weights_sha256": HASH, "data": "CIFAR-10 (JPEG copy)", "split": "test", "n": n,
        "attacks": [*attacks, row("CW", correct, n, None, "L2")],
        "worst_case": row("Worst case", correct, n), "seconds": 1.0, "config": {}, "images_sha256": HASH,
        "labels": [number % len(classes) for number in range(n)] if classes else [], "classes": list(classes),
    }  # fmt: skip
    return EvaluationRecord(**(values | changes))


def means(step, **changes):
    values = {
        "step": step, "epoch": step // 10 - 1, "eps": EPS * step / 50, "loss": 2.0 / step, "clean_loss": 1.0 / step,
        "adv_loss": 2.0 / step, "clean_accuracy": 0.5, "adv_accuracy": 0.4, "consistency": 0.1, "feature_norm": None,
        "learning_rate": 0.1, "unchanged_share": 0.0, "attacks": {"pgd": 30 + step, "fgsm": 60 - step},
    }  # fmt: skip
    return values | changes


def epoch(step, **changes):
    values = {
        "validation_clean": 0.3 + step / 100, "validation_adversarial": 0.2 + step / 200, "best": step == 40,
        "validation_attack": "PGD-10", "validation_n": 100, "seconds": 1.0 * step, "cpu_seconds": 1.0 * step,
    }  # fmt: skip
    return EpochRecord(**(means(step) | values | changes))


def curve(correct, n=200):
    points = [row("PGD-20" if part else "Clean", correct // (1 + part), n, part * EPS) for part in range(5)]
    return EpsCurve(**JUDGED, n=n, seconds=1.0, weights_sha256=HASH, images_sha256=HASH, points=points)


def sanity(name):
    checks = [
        SanityCheck(name=f"check {name}", status=status, figure=f"seen {name}", todo=f"do {name}", values={})
        for status in ("pass", "warn", "fail", "skip")
    ]
    return SanityRecord(
        **JUDGED, model=name, weights_sha256=HASH, data=name, n=200, checks=checks, verdict="fail", seconds=1.0
    )


def benchmark(name, correct, classes, n=200):
    steps = [
        AutoAttackRow(
            name=attack, attacked=n, fooled=n - correct, correct=correct, accuracy=correct / n, low=0.1, high=0.9,
            seconds=1.0,
        )
        for attack in ("clean", "apgd-ce", "apgd-t", "fab-t", "square")
    ]  # fmt: skip
    run = AutoAttackRecord(
        **JUDGED, n=n, seconds=1.0, version="standard", batch_size=250, exact=True, num_classes=10, clean=steps[0],
        attacks=steps[1:], correct=correct, accuracy=correct / n, low=0.1, high=0.9,
        flags=[at < correct for at in range(n)], broken_by=[None if at < correct else "apgd-ce" for at in range(n)],
        findings=[Finding(check=name, attack=name, count=1, message=name)], settings={}, fingerprint={}, threads=1,
        labels=[at % len(classes) for at in range(n)],
    )  # fmt: skip
    return BenchmarkRecord(
        model=name, files={name: HASH}, data=name, official=False, autoattack=run, comparable=False, reasons=[name],
        place=place(correct / n, Ball("Linf", EPS), n=n, official=False), config={}, classes=list(classes),
    )  # fmt: skip


def gallery(names, classes, size=32, confidence=0.9):
    """Three images a class or two, under two attacks."""
    random = np.random.default_rng(0)
    cases = {}
    for attack in ("FGSM", "PGD-20"):
        cases[attack] = []
        for label in classes[:3]:
            clean = random.random((size, size, 3)).astype(np.float32)
            images = {"clean": clean} | {f"{attack} on {name}": (clean + EPS).clip(0, 1) for name in names}
            said = {
                name: Prediction(label=classes[number % 2], confidence=confidence) for number, name in enumerate(names)
            }
            cases[attack].append(Case(label=label, images=images, answers=dict.fromkeys(images, said)))
    return reporting.Gallery(cases=cases, how=f"Chosen by hand of {classes[0]}.", ball=Ball("Linf", EPS))


def dossier(name, correct, classes, **changes):
    run = RunRecord(
        recipe=name, data=name, classes=list(classes), channels=3, size=32, train_n=100, validation_n=10,
        total_steps=50, steps_per_epoch=10, device="cpu", threads=1, precision="32-true", versions={name: name},
        commit=None,
    )  # fmt: skip
    values = {
        "name": name, "config": {"attack": {"norm": "Linf", "attacks": [name]}, "seed": 0}, "run": run,
        "epochs": [epoch(step, warnings=[name]) for step in range(10, 60, 10)],
        "steps": [StepRecord(**means(step)) for step in range(5, 55, 5)],
        "evaluation": evaluation(name, correct, classes), "benchmark": benchmark(name, correct, classes),
        "sanity": sanity(name), "curve": curve(correct),
    }  # fmt: skip
    return reporting.Dossier(**(values | changes))


def hostile():
    names = [HOSTILE, f"{HOSTILE}, {LONG}"]
    dossiers = [dossier(name, correct, names) for name, correct in zip(names, (10, 90), strict=True)]
    return reporting.html_page(dossiers, gallery(names, names), published(), notes=[HOSTILE])


def hundred_classes():
    names, classes = ["standard", "deepseek", "pgd"], [f"class {number}" for number in range(100)]
    dossiers = [dossier(name, 10 + 60 * number, classes) for number, name in enumerate(names)]
    return reporting.html_page(dossiers, gallery(names, classes, size=100), published())


def gaps():
    """Seven models, one of which has only a name; each other lacks something."""
    classes = ["cat", "dog"]
    whole = dossier("whole", 100, classes)
    lacking = ("evaluation", "benchmark", "sanity", "curve", "run")
    parts = [dataclasses.replace(whole, name=f"no {name}", **{name: None}) for name in lacking]
    untrained = dataclasses.replace(whole, name="untrained", epochs=[], steps=[], config={})
    return reporting.html_page([reporting.Dossier(name="nothing"), *parts, untrained])


def not_numbers():
    nan, infinite = math.nan, math.inf
    broken = row("Worst case", 0, accuracy=nan, low=nan, high=nan, mean_l2=nan)
    one = dossier("broken", 0, ["cat", "dog"])
    epochs = [
        epoch(step, adv_loss=nan, clean_loss=infinite, validation_adversarial=nan, consistency=nan, eps=nan)
        for step in (10, 20)
    ]
    points = [dataclasses.replace(broken, eps=number * EPS) for number in range(5)]
    one = dataclasses.replace(
        one,
        epochs=epochs,
        steps=[StepRecord(**means(5, eps=infinite))],
        evaluation=dataclasses.replace(one.evaluation, attacks=[broken], worst_case=broken),
        curve=dataclasses.replace(one.curve, points=points),
        benchmark=None,
    )
    cases = gallery(["broken"], ["cat", "dog"], confidence=nan)
    cases.cases["FGSM"][0].images["FGSM on broken"][:] = nan
    return reporting.html_page([one], cases)


PAGES = {"hostile": hostile, "hundred_classes": hundred_classes, "gaps": gaps, "not_numbers": not_numbers}
