"""A run's records for publication: without folders of the machine that it ran on, with its weights in half precision.

    python -m benchmarks.publish runs/deepseek benchmarks/results/cifar10-jpeg-width16/deepseek --weights

With ``--weights`` the run's own best.pt becomes half precision first, so that a table made after that is measured on
exactly the published weights.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from robust_adapt.config import Config, DataConfig
from robust_adapt.records import write_json
from robust_adapt.training.checkpoint import BEST, load_weights, save_weights

RECORDS = ("run.json", "epochs.jsonl", "brake.jsonl")


def publish(
    folder: Path, out: Path, *records: str, steps: bool = False, weights: bool = False, data: str | None = None
) -> None:
    """Config, run and epochs of ``folder`` into ``out``, and ``records`` beside them, those that are there. steps: the
    record of every step too. data: the data set's public name, where it is another."""
    out.mkdir(parents=True, exist_ok=True)
    config = Config.from_dict(json.loads((folder / "config.json").read_text()))
    if data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=data, root=DataConfig().root))
    write_json(out / "config.json", config.shareable())
    for name in (*RECORDS, *(["steps.jsonl"] if steps else []), *records):
        if (folder / name).exists():
            (out / name).write_bytes((folder / name).read_bytes())
    if weights:
        wide = load_weights(folder / BEST)
        half = {name: value.half() if value.is_floating_point() else value for name, value in wide.items()}
        for where in (folder, out):
            save_weights(where / BEST, half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--data", help="the data set's public name, as folder:cifar10-jpeg")
    options = parser.parse_args()
    publish(options.run, options.out, steps=True, weights=options.weights, data=options.data)


if __name__ == "__main__":
    main()
