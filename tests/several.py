"""What test_distributed.py runs in one process and in two: every function returns what the two must agree on."""

import dataclasses
import os
import signal
from pathlib import Path

import torch
from torch import nn

import robust_adapt
from robust_adapt import evaluation, runs, sanity, training
from robust_adapt.auto_attack import Conditions
from robust_adapt.ball import Ball
from robust_adapt.config import AttackConfig, BrakeConfig, ControllerConfig, DataConfig, LossConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.distributed import Processes
from robust_adapt.errors import CheckpointError, RobustAdaptError
from robust_adapt.recipes import recipe
from robust_adapt.records import StepRecord

SEEN = DataConfig(name="digits", validation=60, subset=192)


class FrozenNorm(nn.BatchNorm2d):
    """Batch-norm that stays in eval mode, so that an image's logits do not depend on its batch."""

    def train(self, mode=True):
        return super().train(False)


class Net(nn.Module):
    def __init__(self, num_classes, dtype):
        super().__init__()
        self.dtype = dtype
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), FrozenNorm(6), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(6 * 16, num_classes)
        self.to(dtype)

    def forward(self, images):
        return self.head(self.body(images.to(self.dtype)).flatten(1))


def double_net():
    return Net(10, torch.float64)


def float_net():
    return Net(10, torch.float32)


def config(net, **changes):
    """Attacks without a random start, a rule that reads the losses, every clean image seen."""
    plain = recipe(
        "literal",
        data=SEEN,
        model=ModelConfig(name=f"several:{net}", normalize=False),
        attack=AttackConfig(attacks=("bim", "fgsm"), mode="chain"),
        controller=ControllerConfig(rule="literal"),
        loss=LossConfig(clean=1.0, consistency=0.5, consistency_on="softmax"),
        brake=BrakeConfig(watch="never"),
        batch_size=32,
        epochs=2,
        log_every=1,
        validation_steps=2,
        precision="32-true",
    )
    return dataclasses.replace(plain, **changes)


def connect(index, count, port):
    """What a launcher sets before it starts a process."""
    torch.set_num_threads(1)
    if count > 1:
        numbers = {"MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_RANK": index, "NODE_RANK": 0}
        os.environ.update({"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in numbers.items()})


def run(work, index, count, port, out, *arguments):
    """One process of ``count``; its result, or the text of its error, as a file."""
    connect(index, count, port)
    try:
        result = work(count, *arguments)
    except RobustAdaptError as error:
        result = (type(error).__name__, str(error), error.said)
    torch.save(result, out)


def gradients(count, net):
    """Of one training step, averaged over the processes; and its figures."""
    settings = config(net)
    fabric = runs.launch("cpu", devices=count)
    torch.manual_seed(0)
    parts = runs.build_parts(settings, load_data(settings.data), fabric)
    seen = {}
    parts.optimizer.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: each.grad.clone() for name, each in parts.model.named_parameters()})
    )
    figures = training.train_step(parts, settings, *next(parts.batches.epoch(0)), 0.5)
    return seen, {name: value.item() for name, value in figures.items()}


def trained(count, folder):
    """eps of every step, as each process has it, and the weights that it ends with."""
    settings = config("double_net")
    fabric = runs.launch("cpu", devices=count)
    torch.manual_seed(0)
    parts = runs.build_parts(settings, load_data(settings.data), fabric)
    records = []
    Path(folder).mkdir(exist_ok=True)
    training.fit(training.Training(parts, settings, Path(folder), 8, report=records.append))
    steps = [record.eps for record in records if type(record).__name__ == "StepRecord"]
    return steps, parts.model.state_dict(), records[-1].to_dict()


def flags(count):
    """Of an evaluation in batches of which the last is smaller, and the images are no multiple of the processes."""
    settings = config("float_net", evaluation=evaluation_of(7))
    fabric = runs.launch("cpu", devices=count)
    data = load_data(settings.data)
    torch.manual_seed(0)
    model = runs.build_for(settings, data)
    record = evaluation.evaluate_model(
        model,
        data.test,
        robust_adapt.Ball("Linf", 0.1),
        rows=["Clean", "PGD-20", "CW", "CW in the ball", "DeepFool"],
        n=41,
        limits={"deepfool": 10},
        batch_size=8,
        processes=Processes.of(fabric),
    )
    return [(row.name, row.flags, row.mean_l2, row.unchanged_share) for row in (*record.attacks, record.worst_case)]


def doors(model, data):
    """What every function that asks a model says of it; figures and names, nothing that tells the time."""
    few = data.test.first(6)
    attacked = Conditions(Ball("Linf", 0.1), "custom", ["apgd-ce"], {"apgd": {"n_restarts": 1}})
    average = robust_adapt.WeightAverage(model)
    average.update(model)
    evaluated = robust_adapt.evaluate_model(model, few, robust_adapt.Ball("Linf", 0.1), rows=["Clean", "PGD-20"])
    judged = robust_adapt.autoattack(model, few, attacked)
    asked = robust_adapt.check_sanity(
        model,
        few,
        robust_adapt.Ball("Linf", 0.1),
        effort=sanity.Effort(steps=2, queries=5),
        evidence=sanity.Evidence(standard=model),
    )
    placed = robust_adapt.benchmark(model, data, attacked, n=6)
    with robust_adapt.crafting(model, seed=0) as inner:
        crafted = robust_adapt.make_attack("pgd", model, eps=0.1)(*few.tensors())
        answers = inner(crafted)
    return {
        "average": average.module.state_dict(),
        "evaluation": (evaluated.weights_sha256, [row.flags for row in evaluated.attacks]),
        "autoattack": (judged.fingerprint["weights"], judged.flags, placed.autoattack.flags),
        "sanity": (asked.weights_sha256, [(check.status, check.figure) for check in asked.checks]),
        "crafted": (crafted.detach(), answers.detach()),
        "diverse": robust_adapt.DiverseAttack(model, ["pgd"], eps=0.1)(*few.tensors()),
    }


def judged_by_the_first(count):
    """A model with buffers, bare and inside each wrapper, asked by the first process while the others do nothing."""
    fabric = runs.launch("cpu", devices=count)
    torch.manual_seed(0)
    bare = float_net().eval()
    ddp = nn.parallel.DistributedDataParallel(bare)
    made = {"bare": bare, "DDP": ddp, "DataParallel": nn.DataParallel(bare), "compiled DDP": torch.compile(ddp)}
    made["Fabric"] = fabric.setup(bare)
    return {name: doors(model, load_data(SEEN)) for name, model in made.items()} if fabric.is_global_zero else {}


def evaluation_of(n):
    return dataclasses.replace(recipe("pgd").evaluation, n=n)


def run_of(epochs, precision="32-true"):
    """A real recipe with random starts, batch-norm that trains, a brake and a moving average."""
    return recipe(
        "deepseek",
        data=SEEN,
        model=ModelConfig(width=4) if precision == "32-true" else ModelConfig(name="conftest:digits_net"),
        loss=LossConfig(consistency=2.0, consistency_on="softmax", clean_share=0.25),
        batch_size=32,
        epochs=epochs,
        log_every=1,
        validation_steps=2,
        checkpoint_steps=3,
        precision=precision,
        device="cpu",
        brake=BrakeConfig(watch="always", every=4),
    )


def train(count, folder, epochs, resume, precision="32-true", killed_at=None):
    """A whole run through ``runs.train``, or until a process that reports the step ``killed_at`` is killed."""

    def end(record):
        if isinstance(record, StepRecord) and record.step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = dataclasses.replace(run_of(epochs, precision), devices=count)
    done = runs.train(settings, folder, resume=resume, report=end)
    return done.model.state_dict(), [record.to_dict() for record in done.steps]


def talk(count):
    """Every kind of message."""
    processes = Processes.of(runs.launch("cpu", devices=count))
    numbers = [torch.tensor(float(processes.index)), torch.full((2, 2), 10.0 * processes.index, dtype=torch.float64)]
    processes.average_(numbers)

    def fails():
        raise CheckpointError("Expected a folder.")

    def is_full():
        raise OSError(28, "No space left on device")

    told = []
    for work in (fails, is_full):
        try:
            processes.first(work)
        except CheckpointError as error:
            told.append((str(error), error.said))
    return [number.tolist() for number in numbers], processes.gather(processes.index), told


def talk_in_slurm(count, tasks):
    """The same, as ``tasks`` of one machine of SLURM."""
    index = os.environ["LOCAL_RANK"]
    if tasks > 1:
        del os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"], os.environ["NODE_RANK"]
    ranks = {"SLURM_PROCID": index, "SLURM_LOCALID": index, "SLURM_NODEID": "0"} if tasks > 1 else {}
    counts = {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NNODES": "1"}
    os.environ.update({"SLURM_JOB_NAME": "train", **counts, **ranks})
    return talk(count)


def train_minutes(count, folder):
    runs.train(dataclasses.replace(run_of(1.0), devices=count, minutes=1.0), folder)
