"""What test_features.py runs in two gloo processes: FeatureTap on a DDP model and on the module inside it."""

import copy
import gc
import os
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robust_adapt.errors import ConfigError
from robust_adapt.features import FeatureTap

PROCESSES = 2


class Net(nn.Module):
    """``spare`` is never run."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(12, 5), nn.Linear(5, 3)
        self.spare = nn.Linear(2, 2).requires_grad_(False)

    def features(self, images):
        return torch.relu(self.body(images.flatten(1)))

    def forward(self, images):
        return self.head(self.features(images))


def check(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    taps(rank)
    gc.collect()  # a DDP model holds the group, whose threads abort a process that ends with it
    dist.destroy_process_group()
    os.write(1, f"rank-{rank}-done\n".encode())  # whole lines, whatever the other process writes


def taps(rank):
    torch.manual_seed(rank)  # DDP gives every process the weights of the first
    inner = Net()
    ddp = DistributedDataParallel(inner)
    names = list(ddp.state_dict())
    images = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    mine = images[rank::PROCESSES]

    with FeatureTap(ddp, "head") as tap, FeatureTap(inner, "body") as bare, FeatureTap(inner, "spare") as spare:
        assert torch.equal(tap(mine)[1], inner.head(inner.features(mine)))
        assert torch.equal(bare(mine)[1], inner.body(mine.flatten(1)))
        assert list(ddp.state_dict()) == names and list(copy.deepcopy(inner).state_dict()) == list(inner.state_dict())
        assert "but it ran 0 times" in error_of(spare, mine)
    gradient_is_of_the_whole_batch(ddp, inner, images, mine)


def error_of(tap, images):
    try:
        tap(images)
    except ConfigError as error:
        return str(error)
    return "no error"


def gradient_is_of_the_whole_batch(ddp, inner, images, mine):
    """Features that come through DDP's forward take part in its mean over the processes."""
    alone = copy.deepcopy(inner)
    alone.zero_grad()
    (alone.features(images).square().mean() + alone(images).square().mean()).backward()
    with FeatureTap(ddp, "body") as tap:
        logits, features = tap(mine)
        ddp.zero_grad()
        (torch.relu(features).square().mean() + logits.square().mean()).backward()
    torch.testing.assert_close(inner.body.weight.grad, alone.body.weight.grad)
    torch.testing.assert_close(inner.head.weight.grad, alone.head.weight.grad)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(check, args=(meeting,), nprocs=PROCESSES)
