"""What surrounds the process: the variables that launchers leave, devices that are not there, a locale of ASCII."""

import json
import os
import subprocess
import sys

import pytest
import torch

from robust_adapt import runs
from robust_adapt.cli import terminal
from robust_adapt.cli.evaluate import EvaluateOptions
from robust_adapt.errors import ConfigError

# A job of four tasks on two machines, seen from the last one; then what other launchers leave for their processes
SLURM = {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
SLURM |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NODELIST": "host[1-2]"}
RANKS = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
LAUNCHERS = {
    "SLURM": SLURM,
    "SLURM with tasks a node": SLURM | {"SLURM_NTASKS_PER_NODE": "2"},
    "ranks of torch.distributed": RANKS,
    "torchrun, half": {"TORCHELASTIC_RUN_ID": "none", **RANKS},
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "MPICH": {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"},
    "LSF": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "/none", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
}
TINY = "--data.name digits --data.validation 20 --data.subset 20 --model.width 8 --batch-size 20 --epochs 1"


def python(code, *arguments, **variables):
    """What a new process prints, under these variables and none of a launcher."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=kept | variables,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_process_is_one_inside_any_launcher(monkeypatch, launcher):
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    fabric = runs.launch("cpu")
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (1, 0, 0)


def test_training_alone_inside_every_launcher_speaks(tmp_path):
    """The variables of all of them at once; the process that they call the last one is the first of its own job."""
    words = ["train", "standard", *TINY.split(), "--out", str(tmp_path / "run")]
    code = f"from robust_adapt import cli; cli.main({words})"
    said = python(code, **{name: value for each in LAUNCHERS.values() for name, value in each.items()}).decode()
    assert "Best epoch by validation" in said and (tmp_path / "run" / "best.pt").exists()


@pytest.mark.parametrize(("launcher", "quiet"), [("torchrun", True), ("fabric", True), ("", False)])
def test_of_several_processes_the_first_one_speaks(monkeypatch, launcher, quiet):
    monkeypatch.setattr(terminal, "PROCESS", "1")
    monkeypatch.setattr(terminal.console, "quiet", False)
    if launcher == "torchrun":
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    flags = ["run", "--devices", "2"] if launcher == "fabric" else ["run"]
    terminal.read(EvaluateOptions, flags, "evaluate")
    assert terminal.console.quiet == quiet


def slurm_refusal(devices, nodes, found):
    return (
        f"Expected tasks of SLURM for `devices` {devices} on each of `nodes` {nodes}, but got {found}; start them with "
        f"`srun --nodes {nodes} --ntasks-per-node {devices}`."
    )


RANK = "SLURM_PROCID=3, SLURM_LOCALID=1, SLURM_NODEID=1"


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "found"),
    [
        ({}, 2, 2, f"SLURM_NTASKS=4, no SLURM_NTASKS_PER_NODE, {RANK}"),
        ({"SLURM_NTASKS_PER_NODE": "2"}, 2, 1, f"SLURM_NTASKS=4, SLURM_NTASKS_PER_NODE=2, {RANK}"),
        ({"SLURM_NTASKS_PER_NODE": "4"}, 2, 2, f"SLURM_NTASKS=4, SLURM_NTASKS_PER_NODE=4, {RANK}"),
        ({"SLURM_NTASKS": "1"}, 1, 2, f"SLURM_NTASKS=1, no SLURM_NTASKS_PER_NODE, {RANK}"),
        ({"SLURM_NTASKS": "x"}, 2, 1, f"SLURM_NTASKS=x, no SLURM_NTASKS_PER_NODE, {RANK}"),
        ({"SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": ""}, 2, 2, None),
    ],
)
def test_tasks_of_slurm_that_are_not_the_processes(monkeypatch, variables, devices, nodes, found):
    for name, value in (SLURM | variables).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    found = found or "SLURM_NTASKS=4, SLURM_NTASKS_PER_NODE=2, no SLURM_PROCID, SLURM_LOCALID=1, SLURM_NODEID=1"
    with pytest.raises(ConfigError) as caught:
        runs.launch("cpu", devices=devices, nodes=nodes)
    assert str(caught.value) == slurm_refusal(devices, nodes, found)


@pytest.mark.parametrize("name", ["gpu", "GPU", "cuda:", "cuda:01", "cuda:-1", "cuda:x", "mps:0", "", "0", None])
def test_names_that_are_no_device(name):
    with pytest.raises(ConfigError) as caught:
        runs.launch(name)
    assert str(caught.value) == (
        f"Expected `device` auto, cpu, cuda, one GPU such as cuda:1, or mps, but got {name!r}; auto takes a GPU where "
        "torch sees one."
    )
    assert runs.device_of("auto") == ("cuda" if torch.cuda.device_count() else "cpu")


@pytest.mark.parametrize(
    ("name", "gpus", "seen", "cure"),
    [
        ("cuda", 0, "no cuda", "cpu"),
        ("cuda:0", 0, "no cuda", "cpu"),
        ("cuda:2", 2, "cuda:0, cuda:1", "cuda:0"),
        ("mps", 2, "no mps", "cpu"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, name, gpus, seen, cure):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        runs.device_of(name)
    assert str(caught.value) == (
        f"Expected a device for `device` {name}, but torch sees {seen}; use `--device {cure}`."
    )
    assert runs.device_of(cure) == cure


def test_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    names = ["cpu", "cuda", "cuda:0", "cuda:1", "mps"]
    assert [runs.device_of(name) for name in names] == names
    assert runs.device_of("auto") == "cuda"
    for name in ("cuda:1", "mps"):
        with pytest.raises(ConfigError) as caught:
            runs.launch(name, devices=2)
        assert str(caught.value) == (
            f"Expected `device` cpu or cuda for 2 processes, but got {name}, which is one device; use `--devices 1`."
        )


@pytest.mark.parametrize(("cores", "most"), [(None, 2), (1, 2), (2, 2), (8, 8)])
def test_more_processes_than_cores(monkeypatch, cores, most):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    with pytest.raises(ConfigError) as caught:
        runs.launch("cpu", devices=most + 1)
    assert str(caught.value) == (
        f"Expected `devices` up to {most}, one for each core of this machine, but got {most + 1}; use `--devices "
        f"{most}`."
    )


@pytest.mark.gpu
def test_one_gpu_by_its_number():
    assert str(runs.launch("cuda:0").device) == "cuda:0"


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = """import json, sys
from robust_adapt import cli
for line in sys.argv[1:]:
    try:
        code = cli.main(json.loads(line))
    except SystemExit as ended:
        code = ended.code
    print(f"code {code}", flush=True)"""


def test_names_beyond_ascii_in_a_locale_of_ascii(make_folder, tmp_path):
    """Every command that prints, with folders, classes and authors in Cyrillic; files are UTF-8 all the same."""
    data = make_folder(
        name="данные", classes=("кошка", "собака", "мышь", "ёж"), size=8, counts=[("train", 6), ("test", 3)]
    )
    run, out = tmp_path / "прогон", tmp_path / "таблица"
    source = ["--data.name", f"folder:{data}", *"--data.validation 4 --model.width 2".split()]
    flags = [*source, *"--batch-size 10 --epochs 1".split()]
    unwritable = [*f"train standard {TINY} --out".split(), str(tmp_path / "другой")]  # out of Python, or a file
    budget = "--eps 8/255 --n 2".split()
    form = ["--benchmark", run, *"--title Статья --authors Автор --link x --draft --out".split(), tmp_path / "заявка"]
    lines = [
        ["plan", "pgd", *flags, "--attack.steps", "1"],
        ["train", "pgd", *flags, "--attack.steps", "1", "--out", run],
        ["evaluate", run, "--rows", "Clean", "PGD-20", *budget],
        ["benchmark", run, *"--version custom --attacks apgd-ce".split(), *budget, "--out", run],
        ["compare", run, run],
        ["submit", run, "--name", "Aвтор2026", *form],
        ["submit", run, "--name", "Author2026", *form],
        ["table", "--standard", run, "--robust", run, *"--evaluation.n 2 --eps 8/255 --out".split(), out, *source],
        ["doctor", "--data-root", tmp_path / "нет"],
        ["train", "нет", *flags],
        ["evaluate", tmp_path / "нет"],
        ["train", "pgd", "--help"],
        ["evaluate", "--ошибка"],
    ]
    lines = [json.dumps(list(map(str, line)), ensure_ascii=False) for line in lines]
    said = python(f"{COMMANDS}\ncli.main({ascii(unwritable)})", *lines, **ASCII).decode("ascii")
    codes = [int(line.removeprefix("code ")) for line in said.splitlines() if line.startswith("code ")]
    assert codes == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 2, 0, 2]
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["classes"] == ["кошка", "мышь", "собака", "ёж"]
    assert "данные" in (out / "table.html").read_text(encoding="utf-8")
    assert "данные" in (out / "table.md").read_text(encoding="utf-8")
    assert "Статья" in (tmp_path / "заявка" / "form.md").read_text(encoding="utf-8")
    at = len(str(tmp_path)) + 1
    assert said.splitlines()[-1] == (
        "ConfigError Expected names that this locale can write, but got: 'ascii' codec can't encode characters in "
        f"position {at}-{at + 5}: ordinal not in range(128); set PYTHONUTF8=1."
    )
    code = f"from robust_adapt import cli; cli.main({ascii(unwritable)})"
    assert "Best epoch by validation" in python(code, **ASCII | {"PYTHONUTF8": "1"}).decode()  # as recommended
