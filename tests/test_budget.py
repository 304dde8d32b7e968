"""``benchmarks/budget.py``: where a curve meets a figure, and curves of real models that an interrupted call keeps."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_training import small, train

from robust_adapt import load_data, load_run
from robust_adapt.config import ModelConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import budget  # noqa: E402


def test_a_curve_meets_a_figure_between_its_points():
    right = [80, 60, 40, 20, 10, 10, 5, 5, 0, 0]  # at 0, 1, 2, 4, ... of 255
    assert budget.crossing(right, 0.5, 100) == pytest.approx(1.5)
    assert budget.crossing(right, 0.4, 100) == pytest.approx(2.0)
    assert budget.crossing(right, 0.3, 100) == pytest.approx(3.0)
    assert budget.crossing(right, 0.9, 100) is None  # never so high
    assert budget.crossing([50] * 10, 0.2, 100) is None  # never so low


def test_curves_of_two_runs_fall_and_are_kept(tmp_path, capsys, monkeypatch):
    few = {name: row for name, row in budget.ATTACKS.items() if (row.steps or 1) < 10}  # the others differ in steps
    monkeypatch.setattr(budget, "ATTACKS", few)
    for seed, kind in enumerate(budget.KINDS):
        train(small("standard", epochs=1, seed=seed, model=ModelConfig(width=2)), tmp_path / kind)
    out = tmp_path / "out"
    arguments = [*(str(tmp_path / kind) for kind in budget.KINDS), "--data", "digits", "--n", "10", "--out", str(out)]
    torch.manual_seed(1)
    budget.main(arguments)
    first = json.loads((out / "budget.json").read_text())
    images, labels = load_data("digits").test.first(10).tensors()
    for kind, curves in first["curves"].items():
        right = int((load_run(tmp_path / kind).model(images).argmax(1) == labels).sum())
        assert set(curves) == {*few} and len(few) == 4
        clean = {one["right"][0] for one in curves.values()}
        assert clean == {right}  # eps 0 is the clean image under every attack
        assert all(len(one["right"]) == 10 and max(one["right"]) == right for one in curves.values())
        assert curves["CW, 5 steps, in the ball"]["unbounded"] <= curves["CW, 5 steps, in the ball"]["right"][-1]
    budget.main(arguments)
    assert json.loads((out / "budget.json").read_text()) == first  # with its CPU seconds: nothing was measured anew
    assert (out / "budget.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("| FGSM | 14.2 % |") == 2
