"""What must survive does, what is damaged is recognised, and no file can run code."""

import hashlib
import io
import json
import os

import pytest
import torch

from robust_adapt.errors import CheckpointError
from robust_adapt.recipes import recipe
from robust_adapt.training import checkpoint as module
from robust_adapt.training.checkpoint import (
    load_checkpoint,
    load_weights,
    open_run,
    read_checkpoint,
    read_config,
    save_checkpoint,
    save_weights,
)

STATE = {
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "position": {"step": 7, "sums": {"loss": 0.1}},
    "none": None,
}


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def error_of(call, *arguments, **options):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def damaged(path, size):
    return f"Expected the whole checkpoint {path}, but it is truncated or damaged ({size} bytes, hash differs)."


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path, STATE)
    state, passed_over = load_checkpoint(tmp_path)
    assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
    assert state["position"] == STATE["position"] and state["none"] is None and passed_over == []
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]  # nothing partial is left


@pytest.mark.parametrize("keep", [0, 1, 50, 0.5, -1, -64, -100])
def test_a_truncated_checkpoint_is_recognised(tmp_path, keep):
    save_checkpoint(tmp_path, STATE)
    path = tmp_path / "last.ckpt"
    data = path.read_bytes()
    short = data[: int(len(data) * keep) if isinstance(keep, float) else keep]
    path.write_bytes(short)
    assert error_of(read_checkpoint, path) == damaged(path, len(short))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_byte_is_recognised(tmp_path, share):
    save_checkpoint(tmp_path, STATE)
    path = tmp_path / "last.ckpt"
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(data)
    assert error_of(read_checkpoint, path) == damaged(path, len(data))


def test_the_checkpoint_before_stands_in_and_that_is_said(tmp_path):
    save_checkpoint(tmp_path, STATE | {"step": 1})
    save_checkpoint(tmp_path, STATE | {"step": 2})
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-10])
    state, passed_over = load_checkpoint(tmp_path)
    assert state["step"] == 1
    assert passed_over == [damaged(path, path.stat().st_size)]


@pytest.mark.parametrize("before", [1, 2])
def test_the_end_of_a_process_between_two_names_loses_nothing(before, tmp_path, monkeypatch):
    for step in range(before):
        save_checkpoint(tmp_path, STATE | {"step": step})
    rename = os.replace

    def end(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", end)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, STATE | {"step": before})
    monkeypatch.undo()
    (tmp_path / "config.json").touch()
    assert module.can_resume(tmp_path)
    state, passed_over = load_checkpoint(tmp_path)
    assert (state["step"], passed_over) == (before - 1, [])
    save_checkpoint(tmp_path, STATE | {"step": before})
    assert load_checkpoint(tmp_path)[0]["step"] == before


def test_a_folder_without_a_checkpoint(tmp_path):
    assert error_of(load_checkpoint, tmp_path) == (
        f"Expected a checkpoint in {tmp_path}, but found none; train without --resume."
    )


def test_a_checkpoint_that_would_run_code_does_not(tmp_path):
    torch.save({"model": Hostile(tmp_path / "proof")}, buffer := io.BytesIO())
    payload = buffer.getvalue()
    seal = module._MARK + hashlib.sha256(payload).hexdigest().encode()  # a hash is no signature: it can be right
    for name, data, read in (("last.ckpt", payload + seal, read_checkpoint), ("best.pt", payload, load_weights)):
        path = tmp_path / name
        path.write_bytes(data)
        assert error_of(read, path).startswith(
            f"Expected a file of tensors at {path}, but got one with an object of Python (io.open), which can run code "
        )
    assert not (tmp_path / "proof").exists()
    torch.load(tmp_path / "best.pt", weights_only=False)["model"].close()
    assert (tmp_path / "proof").exists()  # the file would have


def test_weights_are_a_plain_state_dict(tmp_path, small_net):
    save_weights(tmp_path / "best.pt", small_net.state_dict())
    plain = torch.load(tmp_path / "best.pt", weights_only=True)
    weights = load_weights(tmp_path / "best.pt")
    small_net.load_state_dict(plain)
    assert all(torch.equal(plain[name], weights[name]) for name in small_net.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_come_back_as_float32(tmp_path, dtype):
    weights = {"weight": torch.rand(3).to(dtype), "steps": torch.tensor(4)}
    save_weights(tmp_path / "half.pt", weights)
    found = load_weights(tmp_path / "half.pt")
    assert found["weight"].dtype == torch.float32 and found["steps"].dtype == torch.int64
    assert torch.equal(found["weight"], weights["weight"].float())


def test_weights_that_are_none(tmp_path):
    path = tmp_path / "best.pt"
    torch.save({"model": {"weight": torch.zeros(1)}}, path)
    assert (
        error_of(load_weights, path) == f"Expected a state dict of tensors in {path}, but got dict; restore the file."
    )
    path.write_text("<html>not found</html>")
    assert error_of(load_weights, path).startswith(f"Expected a file of tensors at {path}, but got an HTML page, which")
    absent = tmp_path / "absent.pt"
    assert error_of(load_weights, absent) == (
        f"Expected a file of tensors at {absent}, but got: [Errno 2] No such file or directory: '{absent}'; "
        "look at the path."
    )


def test_a_run_folder_keeps_its_config(tmp_path):
    open_run(tmp_path / "a" / "run", recipe("pgd"), resume=False)
    assert read_config(tmp_path / "a" / "run") == recipe("pgd")


def test_a_run_is_not_overwritten(tmp_path):
    open_run(tmp_path, recipe("pgd"), resume=False)
    assert error_of(open_run, tmp_path, recipe("literal"), resume=False) == (
        f"Expected a new run folder, but {tmp_path} holds a run; use --resume or another --out."
    )
    open_run(tmp_path, recipe("pgd", log_every=7), resume=True)
    assert read_config(tmp_path) == recipe("pgd", log_every=7)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("{", "Expecting property name enclosed in double quotes"),
        (json.dumps({"recipe": "pgd", "epoch": 1}), "Expected a known field of Config, but got 'epoch'; did you mean"),
        ("{}", "Expected a Config as a dict with its `recipe`, but got {}; see Config.to_dict()."),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, text, end):
    (tmp_path / "config.json").write_text(text)
    path = tmp_path / "config.json"
    assert error_of(read_config, tmp_path).startswith(f"Expected the config of a run in {path}, but got: {end}")


def test_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "run"
    folder.write_text("a file in its place")  # root may write into any folder
    assert error_of(open_run, folder, recipe("pgd"), resume=False) == (
        f"Expected to write {folder / 'config.json'}, but got: [Errno 17] File exists: '{folder}'; make room, then run "
        "the same call again."
    )
    sentence = error_of(save_checkpoint, folder, STATE)
    assert sentence.startswith(f"Expected to write {folder / 'last.ckpt'}, but got: [Errno 20] Not a directory: ")
    assert sentence.endswith("; the checkpoint before it is untouched.")
