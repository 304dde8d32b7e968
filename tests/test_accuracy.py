"""``benchmarks/accuracy.py``: points of real runs, kept, and a plain loop that goes on as if nothing had been."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

from robust_adapt.data import load_data

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import accuracy, proof  # noqa: E402


@pytest.fixture
def options(tmp_path):
    return argparse.Namespace(
        data="digits",
        width=2,
        minutes=[0.01],
        search=0.01,
        seeds=[0],
        ways=["plain-ffgsm"],
        peaks=[0.1],
        validation=60,
        out=tmp_path,
    )


def test_an_interrupted_loop_goes_on_to_the_same_bits(options, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "KEEP_EVERY", 3)
    config, path = accuracy.config_of("plain-ffgsm", options), tmp_path / "state.pt"
    data = load_data(config.data)
    whole, first, second = (accuracy.Loop("plain-ffgsm", config, data, 0.1) for _ in range(3))
    end = len(whole.batches) + 2  # over the end of an epoch
    torch.manual_seed(3)
    whole.train(end)

    def die(number=[0]):  # noqa: B006
        number[0] += 1
        if number[0] == end - 1:
            raise KeyboardInterrupt

    step = first.step
    first.step = lambda *batch: (die(), step(*batch))
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        first.train(end, path)
    second.train(end, path)
    assert second.cpu_seconds > 0
    assert all(torch.equal(one, second.model.state_dict()[name]) for name, one in whole.model.state_dict().items())


def test_points_are_of_real_runs_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(proof, "JUDGED", (100, 130))
    arguments = "--data digits --width 2 --minutes 0.005 --search 0.005 --validation 60 --out".split()
    arguments += [str(tmp_path)]
    arguments += ["--peaks", "0.1", "--ways", "plain-ffgsm", "one-step"]
    accuracy.main(arguments)
    printed = capsys.readouterr().out
    records = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*-s0.json")}
    assert sorted(records) == ["one-step-0.005-s0.json", "plain-ffgsm-0.005-s0.json"]
    for record in records.values():
        assert record["steps"] == max(1, round(0.3 / record["seconds_a_step"]))
        assert (
            record["training_cpu_seconds"] > 0 and record["n"] == 30 and 0 <= record["margin"] <= record["clean"] <= 1
        )
    assert "| plain-ffgsm | 0.005 | 1 |" in printed and (tmp_path / "accuracy.png").stat().st_size > 1000
    (tmp_path / "plain-ffgsm-0.005-s0.json").write_text(
        json.dumps(records["plain-ffgsm-0.005-s0.json"] | {"margin": 0.5})
    )
    accuracy.main(arguments)
    assert "| 50.0 |" in capsys.readouterr().out  # not trained anew
