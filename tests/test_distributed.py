"""Two real gloo processes against one: the same gradients, eps, flags and records; and what happens when one dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several
import torch
from conftest import TIMES, same
from forked import LIMIT, PROCESSES, wait_for

from robust_adapt import runs
from robust_adapt.attacks import DiverseAttack
from robust_adapt.data import Batches, load_data
from robust_adapt.distributed import Processes
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import recipe
from robust_adapt.training.checkpoint import read_checkpoint


@pytest.fixture
def start(tmp_path):
    """Processes of one job: ``start(work, count, *arguments)`` -> them and their files."""
    started = []

    def start(work, count, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        files = [tmp_path / f"{work.__name__}-{len(started)}-{index}.pt" for index in range(count)]
        job = []
        for index, file in enumerate(files):
            process = PROCESSES.Process(target=several.run, args=(work, index, count, port, str(file), *arguments))
            process.start()
            job.append(process)
        started.extend(job)
        return job, files

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def results(start):
    """What each process of a job returns."""

    def results(work, count, *arguments):
        job, files = start(work, count, *arguments)
        for process in job:
            process.join(LIMIT)
        assert [process.exitcode for process in job] == [0] * count
        return [torch.load(file, weights_only=True) for file in files]

    return results


@pytest.mark.parametrize(("net", "tolerance"), [("double_net", 1e-10), ("float_net", 1e-5)])
def test_gradients_of_a_step_are_those_of_one_process(results, net, tolerance):
    [(alone, figures)] = results(several.gradients, 1, net)
    for gradients, theirs in results(several.gradients, 2, net):
        for name, gradient in alone.items():
            assert (gradients[name] - gradient).norm() <= tolerance * gradient.norm() > 0
        assert theirs == pytest.approx(figures, rel=1e-5)


def test_eps_and_weights_are_equal_everywhere(results, tmp_path):
    [(alone, weights, last)] = results(several.trained, 1, str(tmp_path / "one"))
    (first, *own), (second, *theirs) = results(several.trained, 2, str(tmp_path / "two"))
    assert first == second and len(set(first)) == 8  # the rule moves it at every step
    assert first == pytest.approx(alone, rel=1e-7)
    assert same(own[0], theirs[0])
    clock = dict.fromkeys(TIMES, 0)
    assert own[1] | clock == theirs[1] | clock  # every process has recorded the whole batch
    assert own[1]["attacks"] == last["attacks"]
    for name, weight in weights.items():
        assert torch.allclose(own[0][name], weight, rtol=1e-4, atol=1e-6)


def test_flags_of_an_evaluation_are_those_of_one_process(results):
    [alone] = results(several.flags, 1)
    assert [len(flags) for _, flags, *_ in alone] == [41, 41, 41, 41, 10, 41]
    for record in results(several.flags, 2):
        assert record == alone


def test_one_process_alone_may_judge_a_model_inside_a_wrapper(results):
    """The figures, names and hashes are those of the module inside."""
    found, nothing = results(several.judged_by_the_first, 2)
    bare = found.pop("bare")
    assert nothing == {} and list(found) == ["DDP", "DataParallel", "compiled DDP", "Fabric"]
    for wrapper, doors in found.items():
        assert [door for door in bare if not same(doors[door], bare[door])] == [], wrapper


def test_what_processes_tell_each_other(results):
    for index, (means, gathered, told) in enumerate(results(several.talk, 2)):
        assert means == [0.5, [[5, 5], [5, 5]]] and gathered == [0, 1]
        full = "Expected to read and write files, but got: [Errno 28] No space left on device; see to the folder."
        assert told == [("Expected a folder.", index == 1), (full, index == 1)]


@pytest.mark.parametrize("tasks", [2, 1])
def test_tasks_of_slurm_that_are_the_processes(results, tasks):
    """What the refusal recommends, and a single task whose other process Fabric starts; here the test starts it."""
    for means, gathered, _ in results(several.talk_in_slurm, 2, tasks):
        assert means[0] == 0.5 and gathered == [0, 1]


def test_alone_nothing_is_asked():
    alone, number = Processes(), torch.tensor(3)
    alone.average_([number])
    assert number == 3 and alone.gather("x") == ["x"] and alone.first(lambda: 7) == 7


def test_a_killed_job_goes_on_to_the_bit(results, start, precision, tmp_path):
    whole, again = str(tmp_path / "whole"), str(tmp_path / "again")
    expected = results(several.train, 2, whole, 4.0, False, precision)
    assert same(expected[0], expected[1])
    job, _ = start(several.train, 2, again, 4.0, False, precision, 8)
    for process in job:
        process.join(LIMIT)
    assert job[0].exitcode == -signal.SIGKILL
    assert 0 < read_checkpoint(tmp_path / "again" / "last.ckpt")["position"]["step"] < len(expected[0][1])
    for weights, steps in results(several.train, 2, again, 4.0, True, precision):
        assert same(weights, expected[0][0]) and steps == expected[0][1]
    assert json.loads((tmp_path / "again" / "run.json").read_text())["processes"] == 2


def test_another_number_of_processes_goes_on_and_says_so(results, tmp_path):
    run = str(tmp_path / "run")
    results(several.train, 2, run, 1.0, False)
    (tmp_path / "run" / "config.json").write_text(json.dumps(several.run_of(1.0).to_dict()))
    [(_, steps)] = results(several.train, 1, run, 1.0, True)
    assert len(steps) == 6


def test_a_process_that_dies_ends_the_others(start, tmp_path):
    job, files = start(several.train, 2, str(tmp_path / "run"), 400.0, False)
    wait_for(tmp_path / "run" / "last.ckpt")
    os.kill(job[1].pid, signal.SIGKILL)
    job[0].join(LIMIT)  # gloo itself would wait for half an hour
    assert job[0].exitcode == 0
    kind, text, _ = torch.load(files[0], weights_only=True)
    assert kind == "RobustAdaptError"
    assert text.startswith("Expected an answer of every process, but one has ended or hangs (")
    assert text.endswith("); see what it said before, then go on with --resume.")


TRAIN = (
    "-m robust_adapt train pgd --data.name digits --data.validation 60 --data.subset 256 --model.width 4 "
    "--batch-size 64 --attack.steps 1 --precision 32-true --device cpu --epochs 400 --out"
).split()


@contextlib.contextmanager
def command_line(folder, *arguments):
    """A job that has written its first checkpoint; what it prints is in ``output``."""
    with open(folder / "output", "w") as output:
        job = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(folder / "run" / "last.ckpt")
            yield job
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()


def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path):
    """Through the command line and Fabric's launcher."""
    run = tmp_path / "run"
    with command_line(tmp_path, *TRAIN, str(run), "--devices", "2") as job:
        job.send_signal(signal.SIGTERM)
        assert job.wait(LIMIT) == 143
    text = " ".join((tmp_path / "output").read_text().split())
    assert text.count("Stopped by SIGTERM after step ") == 1
    assert text.endswith(f"go on: robust-adapt train pgd --out {run} --resume --devices 2")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["fabric", "torchrun"])
def test_a_dead_process_ends_the_whole_command(tmp_path, launcher):
    run = str(tmp_path / "run")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    words = [*torchrun, *TRAIN, run] if launcher == "torchrun" else [*TRAIN, run, "--devices", "2"]
    with command_line(tmp_path, *words) as job:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert job.wait(LIMIT) != 0
    text = " ".join((tmp_path / "output").read_text().split())
    assert "Expected an answer of every process, but one has ended or hangs" in text or "SIGKILL" in text


@pytest.mark.slow
def test_a_benchmark_ends_with_its_first_process(tmp_path):
    train = [*TRAIN, str(tmp_path / "run"), "--epochs", "1"]
    subprocess.run([sys.executable, *train], check=True, capture_output=True)
    state = tmp_path / "bench" / "state"
    words = ["-m", "robust_adapt", "benchmark", str(tmp_path / "run"), *"--devices 2 --batch-size 10".split()]
    words += ["--out", str(tmp_path / "bench")]
    job = subprocess.Popen([sys.executable, *words], start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for(state / "clean.pt")
    (child,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    try:
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        end = time.monotonic() + LIMIT
        while (stat := Path(f"/proc/{child}/stat")).exists() and ") Z" not in stat.read_text():
            assert time.monotonic() < end, "the other process still waits"
            time.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def test_a_share_is_a_part_of_the_one_batch():
    data = load_data(several.SEEN)
    settings = {"seed": 3, "augmentation": data.augmentation}
    whole = Batches(data.train, 32, **settings).epoch(1, start=2)
    shares = zip(
        *(Batches(data.train, 32, shard=(index, 4), **settings).epoch(1, start=2) for index in range(4)), strict=True
    )
    for (images, labels), parts in zip(whole, shares, strict=True):
        assert torch.equal(images, torch.cat([part[0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError) as caught:
        Batches(load_data(several.SEEN).train, 32, seed=0, shard=(0, 3))
    assert str(caught.value) == (
        "Expected `batch_size` as a multiple of the 3 processes, but got 32; it is the batch of all of them together, "
        "take 33."
    )


def test_minutes_need_one_process(results, tmp_path):
    for kind, text, _ in results(several.train_minutes, 2, str(tmp_path / "run")):
        assert kind == "ConfigError"
        assert text == "Expected `epochs` with several processes, but got `minutes`: its probe measures one alone."


def test_random_starts_differ_on_the_same_draws():
    config = recipe("pgd")
    assert config.devices == 1 and runs.launch("cpu").world_size == 1
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images, labels = torch.rand(8, 3, 2, 2), torch.zeros(8, dtype=torch.long)
    ours, theirs = (
        DiverseAttack(net, ["pgd", "fgsm", "ffgsm"], eps=0.1, steps=1, seed=1, stream=stream) for stream in (0, 1)
    )
    starts = []
    for _ in range(6):
        starts.append(torch.equal(ours(images, labels), theirs(images, labels)))
        assert ours.last.attacks == theirs.last.attacks
    assert not all(starts)
    assert ours.state_dict() == theirs.state_dict()


def test_shares_of_one_image_meet_different_attacks():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    met = []
    for stream in range(3):
        attack = DiverseAttack(net, ["pgd", "fgsm", "bim"], eps=0.1, steps=1, pick="all", seed=1, stream=stream)
        attack(torch.rand(1, 3, 2, 2), torch.zeros(1, dtype=torch.long))
        met += [name for name, images in attack.last.attacks.items() if images]
    assert sorted(met) == ["bim", "fgsm", "pgd"]


@pytest.mark.parametrize(("name", "value"), [("devices", -1), ("nodes", 0)])
def test_numbers_of_processes_that_are_none(name, value):
    with pytest.raises(ConfigError) as caught:
        runs.launch("cpu", **{name: value})
    assert str(caught.value) == f"Expected `{name}` as a whole number >= 1, but got {value}; give one such as 1."
