"""The examples of the documentation run, and do what they say."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def test_own_loop_trains_and_judges_the_averaged_model():
    main = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]
    clean, robust = main(epochs=3, width=4)
    assert clean > 0.3
    assert 0 <= robust <= clean


def compiled_loop(**options):
    torch._dynamo.reset()
    main = runpy.run_path(str(EXAMPLES / "own_loop_compiled.py"))["main"]
    clean, robust = main(epochs=1, width=4, **options)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    assert clean > 0.3 and 0 <= robust <= clean
    assert graphs > 0  # it was compiled, attack and training


def test_own_loop_compiled():
    compiled_loop()


@pytest.mark.slow
def test_own_loop_compiled_by_inductor():
    compiled_loop(backend="inductor")


def test_own_loop_ddp_runs_two_processes_with_one_eps():
    command = [sys.executable, str(EXAMPLES / "own_loop_ddp.py"), "--epochs", "1", "--width", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=EXAMPLES.parents[1])
    assert done.returncode == 0, done.stderr
    said = r"^clean (.+) %, PGD-20 at Linf 0.1 (.+) %, eps at the end 0.1000$"
    found = re.search(said, done.stdout, re.MULTILINE)  # gloo may speak too
    clean, robust = (float(value) for value in found.groups())
    assert clean > 20 and 0 <= robust <= clean
