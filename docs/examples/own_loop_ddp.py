"""Your own loop with DDP: two processes (gloo), each crafting for its half of every batch, eps equal on both.

Runs on the digits that scikit-learn embeds, in under a minute on two cores: ``python docs/examples/own_loop_ddp.py``.
"""

import argparse
import gc
import json
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import robust_adapt
from robust_adapt.config import DataConfig
from robust_adapt.data import Batches, Split

PROCESSES = 2


def mean_over_processes(values: Tensor) -> list[float]:
    """What a controller may read: the same numbers on every process."""
    values = values / PROCESSES
    dist.all_reduce(values)
    return values.tolist()


def work(rank: int, folder: str, epochs: int, eps: float, width: int) -> None:
    """One process: train on its half of every batch; the first one judges the averaged model."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    model, images, last = train(rank, epochs, eps, width)
    gc.collect()  # a DDP model that is still there holds the group, whose threads abort a process that ends with it
    dist.destroy_process_group()
    if rank == 0:
        record = robust_adapt.evaluate_model(model, images, robust_adapt.Ball("Linf", eps), rows=["Clean", "PGD-20"])
        found = [record.attacks[0].accuracy, record.attacks[1].accuracy, last]
        Path(folder, "found.json").write_text(json.dumps(found))


def train(rank: int, epochs: int, eps: float, width: int) -> tuple[nn.Module, Split, float]:
    """The averaged model, the test images and the last eps."""
    torch.manual_seed(0)
    data = robust_adapt.load_data(DataConfig(name="digits", validation=120))
    mean, std = data.statistics()
    model = robust_adapt.build_model("ResNet18", channels=1, size=8, width=width, mean=mean, std=std)
    average = robust_adapt.WeightAverage(model, decay=0.98)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    batches = Batches(data.train, 64, seed=0, shard=(rank, PROCESSES))  # together they are the batch of one process

    # the attack unwraps DDP: ranks that draw different attacks need different numbers of forwards, and none waits
    attack = robust_adapt.DiverseAttack(ddp, ["pgd", "mifgsm", "upgd-margin"], eps=eps, steps=2, seed=rank)
    controller = robust_adapt.EpsilonController("ramp-trim", target=eps, total_steps=len(batches) * epochs)
    history = []
    with robust_adapt.FeatureTap(ddp) as tap:  # the hook sits in the module inside
        for epoch in range(epochs):
            for x, y in batches.epoch(epoch):
                attack.eps = controller.eps
                logits, features = tap(torch.cat([x, attack(x, y)]))  # one forward a backward, as DDP wants it
                clean_logits, adv_logits = logits.chunk(2)
                consistency = robust_adapt.feature_consistency(*features.chunk(2), relative=True)
                loss = F.cross_entropy(adv_logits, y) + 0.5 * consistency
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average.update(model)
                history.append(controller.eps)
                right = torch.stack([one.argmax(1) == y for one in (clean_logits, adv_logits)]).float().mean(1)
                clean_accuracy, adv_accuracy = mean_over_processes(right)
                controller.step(clean_accuracy=clean_accuracy, adv_accuracy=adv_accuracy)

    everywhere = [None] * PROCESSES
    dist.all_gather_object(everywhere, (history, [parameter.sum().item() for parameter in model.parameters()]))
    assert all(one == everywhere[0] for one in everywhere), "eps and weights are the same on every process"
    return average.module, data.test, controller.eps


def main(epochs: int = 6, eps: float = 0.1, width: int = 8) -> tuple[float, float, float]:
    """Train on two processes; returns clean and PGD-20 accuracy of the averaged weights and the last eps."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, args=(folder, epochs, eps, width), nprocs=PROCESSES)
        return tuple(json.loads(Path(folder, "found.json").read_text()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    clean, robust, last = main(options.epochs, width=options.width)
    print(f"clean {100 * clean:.1f} %, PGD-20 at Linf 0.1 {100 * robust:.1f} %, eps at the end {last:.4f}")
