"""The published robust model loads, and is the one that the published table was measured on."""

import json
from pathlib import Path

import robust_adapt
from robust_adapt.models import weights_hash

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "cifar10-jpeg-width16"


def test_the_published_weights_are_those_of_the_table():
    run = robust_adapt.load_run(RESULTS / "deepseek")
    records = {record["model"]: record for record in json.loads((RESULTS / "table.json").read_text())}
    assert weights_hash(run.model) == records["deepseek"]["weights_sha256"]
    assert records["deepseek"]["data"] == "CIFAR-10 (JPEG copy)"
