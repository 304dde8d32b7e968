"""Every model of RobustBench's zoo with random weights: do our loader and RobustBench's own give the same logits?

    python benchmarks/zoo.py --out benchmarks/results/zoo.json

An entry of up to 75 million parameters (so that an ensemble is among them) is built, its random weights are written
where the zoo expects its files, and read by `load_zoo_model` (offline) and by `robustbench.utils.load_model`. `equal`:
both models hold the very weights that were written, and give the same logits to the bit on two images of their size.
Else the row has a `reason`. One process an entry; its files are deleted at its end, the next call goes on where
this one stopped.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Entry = tuple[str, str, str]  # data set, threat model, name


def entries() -> list[Entry]:
    from robustbench.model_zoo import model_dicts

    return [
        (data.value, threat.value, name)
        for data, table in model_dicts.items()
        for threat, names in table.items()
        for name in names
    ]


def million_parameters(build: Callable[[], Any]) -> float:
    """On the meta device where that works, else for real."""
    import torch

    try:
        with torch.device("meta"):
            model = build()
    except Exception:  # torch and timm raise several kinds where a constructor reads its tensors
        model = build()
    return round(sum(each.numel() for each in model.parameters()) / 1e6, 1)


def builder(entry: Entry) -> Callable[[], Any]:
    """What builds the entry's model with random weights, also where the zoo downloads them while it builds one."""
    import timm
    from robustbench.model_zoo.architectures.utils_architectures import normalize_model
    from robustbench.utils import DATASET_CLASSES, BenchmarkDataset
    from torchvision.models import resnet50

    from robust_adapt.leaderboard.zoo import timm_name, zoo_entry

    dataset, threat, name = entry
    if timm.is_model(timm_name(name, dataset, threat)):
        classes = DATASET_CLASSES[BenchmarkDataset(dataset)]
        return lambda: timm.create_model(timm_name(name, dataset, threat), num_classes=classes)
    if (dataset, name) == ("imagenet", "Standard_R50"):
        return lambda: normalize_model(resnet50(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    build: Callable[[], Any] = zoo_entry(name, dataset, threat)["model"]
    return build


def forms(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The state dicts that the zoo may want in the file: by the model's names, or by those inside its normalisation.

    Its loader takes `module.` and `model.` off, wherever they are in a name; here they are put where it takes them off.
    """
    from robustbench.utils import rm_substr_from_state_dict

    def read(name: str) -> str:
        stripped = rm_substr_from_state_dict(rm_substr_from_state_dict({name: 0}, "module."), "model.")
        return str(next(iter(stripped)))

    for inside in (False, True):
        names = {name: name.removeprefix("model.") for name in state if name.startswith("model.") or not inside}
        names = names if inside else {name: name for name in names}
        written = {}
        for name, wanted in names.items():
            tries = (before + wanted for before in ("", "module.", "model.", "module.model.", "module.module."))
            written[next(each for each in tries if read(each) == wanted)] = state[name]
        yield written


def judge(entry: Entry, folder: Path, limit: float) -> dict[str, Any]:
    """The entry's row: equal, or the reason why there is nothing to compare."""
    import torch
    from robustbench.utils import load_model

    from robust_adapt.leaderboard import load_zoo_model
    from robust_adapt.leaderboard.zoo import zoo_entry, zoo_files

    dataset, threat, name = entry
    size = int((re.findall(r"\d+$", zoo_entry(name, dataset, threat).get("preprocessing", "")) or [224])[0])
    size = size if dataset == "imagenet" else 32
    row = {"parameters": million_parameters(builder(entry)), "size": size}
    if row["parameters"] > limit:
        return row | {"reason": f"more than {limit:g} million parameters"}
    model = builder(entry)().eval()
    parts = model.models if isinstance(zoo_entry(name, dataset, threat)["gdrive_id"], list) else [model]
    for written in zip(*(forms(part.state_dict()) for part in parts), strict=True):
        for file, state in zip(zoo_files(name, dataset, threat, folder), written, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            plain = folder not in file.parents or "checkpoints" in file.parts
            torch.save(state if plain else {"state_dict": state, "last": state}, file)
        try:
            theirs = load_model(name, model_dir=folder, dataset=dataset, threat_model=threat)
        except RuntimeError:  # names that do not fit: the other form
            continue
        if same(theirs.state_dict(), model.state_dict()):
            break
    else:
        raise ValueError("in neither form do its weights come back")
    ours = load_zoo_model(name, dataset=dataset, threat=threat, model_dir=folder, offline=True).model
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    answers = []
    for each in (ours, theirs):
        torch.manual_seed(0)  # some draw in their forward
        with torch.no_grad():
            answers.append(each(images))
    equal = same(ours.state_dict(), model.state_dict()) and torch.equal(*answers)
    return row | {"equal": equal, "finite": bool(answers[0].isfinite().all())}


def same(ones: dict[str, Any], others: dict[str, Any]) -> bool:
    import torch

    return ones.keys() == others.keys() and all(torch.equal(ones[name], others[name]) for name in ones)


def work(entry: Entry, folder: str, limit: float, result: Path) -> None:
    """One entry, in a process of its own."""
    import torch

    os.environ["TORCH_HOME"] = folder
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        row = judge(entry, Path(folder), limit)
    except Exception as error:  # whatever upstream raises is what the row says
        row = {"reason": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    result.write_text(json.dumps(row))


def measure(entry: Entry, limit: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        process = multiprocessing.get_context("fork").Process(target=work, args=(entry, folder, limit, result))
        process.start()
        process.join()
        row = json.loads(result.read_text()) if result.is_file() else {"reason": f"exit code {process.exitcode}"}
    return dict(zip(("dataset", "threat", "name"), entry, strict=True)) | row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=75, help="million parameters")
    parser.add_argument("--only", default="", help="entries whose data set, threat model and name have this in them")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "zoo.json")
    options = parser.parse_args()
    sys.path[:] = [path for path in sys.path if Path(path) != HERE]  # autoattack.py beside this file hides the library
    from robust_adapt import upstream
    from robust_adapt.files import write_atomically

    upstream.prepare()
    import robustbench.utils  # noqa: F401  once, before the processes are forked

    import robust_adapt.leaderboard  # noqa: F401

    rows = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
    done = {(row["dataset"], row["threat"], row["name"]) for row in rows}
    for entry in entries():
        if entry in done or options.only not in " ".join(entry):
            continue
        rows.append(measure(entry, options.limit))
        print(json.dumps(rows[-1]), flush=True)
        judged = [row for row in rows if "equal" in row]
        result = {
            "zoo": len(entries()),
            "entries": len(rows),
            "judged": len(judged),
            "equal": sum(row["equal"] for row in judged),
        }
        result |= {"limit": options.limit, "versions": upstream.versions(), "commit": upstream.commit(), "rows": rows}
        write_atomically(options.out, (json.dumps(result, indent=1) + "\n").encode())
    if any(not row.get("equal", True) for row in rows):
        raise SystemExit("Expected the same logits from both loaders, but some differ.")


if __name__ == "__main__":
    main()
