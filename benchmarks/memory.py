"""Peak memory of an evaluation from disk, on few and on many images; each in a process of its own.

python -m benchmarks.memory --data disk:cifar10-jpeg --out benchmarks/results/memory-from-disk.json
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from robust_adapt import Ball, evaluate_model, load_data, upstream
from robust_adapt.config import DataConfig

SIZE, ROWS = 224, ["Clean", "FGSM"]


def measure(data: str, n: int, batch_size: int, workers: int) -> dict[str, object]:
    """The rows on n images of 224 pixels by a net of one convolution, and the highest resident memory meanwhile."""
    torch.manual_seed(0)
    test = load_data(DataConfig(name=data, size=SIZE, workers=workers)).test
    model = nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)).eval()
    begin = time.monotonic()
    record = evaluate_model(model, test, Ball("Linf", "1/255"), rows=ROWS, n=n, batch_size=batch_size)
    return {
        "n": record.n,
        "right": {row.name: row.correct for row in record.attacks},
        "images_sha256": record.images_sha256,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "seconds": round(time.monotonic() - begin),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if len(options.n) == 1:
        result = measure(options.data, options.n[0], options.batch_size, options.workers)
        options.out.write_text(json.dumps(result))
        return
    runs = []
    for n in options.n:
        subprocess.run([sys.executable, "-m", "benchmarks.memory", *sys.argv[1:], "--n", str(n)], check=True)
        runs.append(json.loads(options.out.read_text()))
        print(runs[-1])
    about = {"size": SIZE, "rows": ROWS, "batch_size": options.batch_size, "workers": options.workers}
    grown = runs[-1]["peak_mib"] - runs[0]["peak_mib"]
    content = about | {
        "runs": runs,
        "grown_mib": round(grown, 1),
        "versions": upstream.versions(),
        "commit": upstream.commit(),
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
