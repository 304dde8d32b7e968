"""``--log tensorboard``: what TensorBoard reads is what was recorded, also after a run went on."""

import csv
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import CONSISTENT, small

from robust_adapt import cli, runs
from robust_adapt.config import ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.records import StepRecord
from robust_adapt.runs.metrics import tensorboard


def test_every_number_is_there_once_also_after_a_run_went_on(tmp_path):
    config = small("deepseek", checkpoint_steps=2, model=ModelConfig(name="conftest:digits_net"), loss=CONSISTENT)

    def stopped(report):
        def kill(record):
            report(record)
            if isinstance(record, StepRecord) and record.step == 5:  # the last checkpoint is of step 4
                raise KeyboardInterrupt

        return kill

    with tensorboard(tmp_path) as report, pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path, report=stopped(report))
    with tensorboard(tmp_path) as report:
        run = runs.train(config, tmp_path, resume=True, report=report)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("step/loss")}
    assert losses == pytest.approx({record.step: record.loss for record in run.steps})
    assert len(events.Scalars("step/loss")) == len(run.steps) == 9
    names = {f"epoch/{name}" for name in ("validation_clean", "validation_adversarial", "eps", "consistency")}
    assert names <= set(events.Tags()["scalars"])
    assert len(events.Scalars("epoch/validation_clean")) == len(run.epochs) == 3


def test_the_command_keeps_a_table_of_all_numbers_and_a_log_where_that_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = (
        "train pgd --data.name digits --data.subset 192 --data.validation 40 --model.width 2 --epochs 2 --device cpu"
    )
    assert cli.main([*words.split(), "--log-every", "1", "--out", "run", "--log", "tensorboard"]) == 0
    written = capsys.readouterr().out.strip().rpartition("\n")[2].removeprefix("Written to run: ").split(", ")
    assert {name.strip("/") for name in written} == {path.name for path in Path("run").iterdir()} - {".lock"}
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    with open("run/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    run = runs.load_run("run")
    assert [row["record"] for row in rows] == ["step"] * len(run.steps) + ["epoch"] * 2
    assert [float(row["loss"]) for row in rows[: len(run.steps)]] == [record.loss for record in run.steps]
    assert float(rows[-1]["validation_clean"]) == run.epochs[-1].validation_clean and rows[0]["validation_clean"] == ""
    assert [event.step for event in events.Scalars("step/loss")] == [record.step for record in run.steps]


def test_without_tensorboard_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'robust-adapt\[tensorboard\]'"), tensorboard(tmp_path):
        raise AssertionError("it must not begin")
