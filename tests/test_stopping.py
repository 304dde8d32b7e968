"""Signals, the lock and kill -9, with real processes: nothing is lost, and the exit code says what happened."""

import importlib
import os
import signal
import time
from pathlib import Path

import pytest
from forked import LIMIT, PROCESSES, command, wait_for

from robust_adapt.errors import CheckpointError, Stopped
from robust_adapt.training.checkpoint import LOCK, locked, read_checkpoint
from robust_adapt.training.stopping import Stop

RUN = (
    "--data.name digits --data.validation 60 --data.subset 256 --model.width 4 --batch-size 64 --epochs 4000 "
    "--attack.steps 1 --brake.watch never --validation-steps 1 --precision 32-true --log-every 1 "
    "--optimizer.average 0"
).split()


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments):
        process = PROCESSES.Process(target=command, args=(str(tmp_path / "output"), *arguments))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_its_step_and_says_how_to_go_on(tmp_path, start, number, code):
    run = tmp_path / "run"
    process = start("train", "pgd", *RUN, "--out", str(run))
    wait_for(run / "last.ckpt")
    os.kill(process.pid, number)
    process.join(LIMIT)
    assert process.exitcode == code
    position = read_checkpoint(run / "last.ckpt")["position"]
    step = position["step"]
    assert 4 <= step < 16000
    assert len((run / "steps.jsonl").read_text().splitlines()) == step  # every step until the signal is there
    text = " ".join((tmp_path / "output").read_text().split())
    assert text.endswith(
        f"Stopped by {number.name} after step {step} of 16000, with a checkpoint in {run}; go on: robust-adapt train "
        f"pgd --out {run} --resume"
    )


def test_a_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path, start):
    run = tmp_path / "run"
    process = start("train", "pgd", *RUN, "--out", str(run))
    wait_for(run / "last.ckpt")
    with pytest.raises(CheckpointError) as caught, locked(run):
        pass
    assert str(caught.value) == (
        f"Expected to be the only writer of {run}, but process {process.pid} is training into it; wait for its end, or "
        "use another --out."
    )
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(run):
        assert (run / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^Expected to write the run folder .*file/run, but got: .*\.$"):
        with locked(tmp_path / "file" / "run"):
            pass


def test_the_first_signal_is_noted_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        with stop.interrupting():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as caught, stop.interrupting():
            pass
        assert (caught.value.name, caught.value.code) == ("SIGTERM", 143)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_signal_ends_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        while stop.signal is None:  # two signals that come together may be delivered as one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    signal.signal(signal.SIGINT, before)


def test_a_long_part_is_left_at_once():
    with Stop() as stop:
        with pytest.raises(Stopped), stop.interrupting():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert not stop.at_once


def test_killed_runs_end_like_the_one_that_was_not(tmp_path, monkeypatch):
    """``benchmarks/kills.py`` with one kill."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    kills = importlib.import_module("kills")
    result = kills.measure(1, 1, tmp_path)
    assert result["kills"] == 1 and result["runs"] >= 1
    assert result["identical"] == result["runs"]
