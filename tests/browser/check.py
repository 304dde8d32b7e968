"""The pages as a browser shows them: ``python tests/browser/check.py [PAGE ...] [--pictures FOLDER]``.

No console message, no request beyond the file, no scrolling sideways at three widths, text contrast of at least 4.5:1
in both colour schemes, and each attack of the case study can be chosen. Without pages it makes those of the
repository's runs, of a short ``demo`` and of odd records; without a Chromium it says so and does nothing.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from browser import chromium  # noqa: E402

WIDTHS, SCHEMES, CONTRAST = (360, 768, 1440), ("light", "dark"), 4.5
JUDGE = Path(__file__).with_name("judge.js").read_text(encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    path = chromium.find()
    if path is None:
        print(f"NOT RUN: no Chromium ({', '.join(chromium.NAMES)}); the pages were looked at by no browser.")
        print("Debian has one: apt-get update && apt-get install chromium")
        return 0
    with tempfile.TemporaryDirectory() as folder, chromium.browser(path) as page:
        pages = options.pages or make_pages(Path(folder))
        wrong = [sentence for each in pages for sentence in faults(page, each, options.pictures)]
    for sentence in wrong:
        print(sentence)
    print(f"{len(pages)} pages, {len(WIDTHS)} widths, {len(SCHEMES)} colour schemes: {len(wrong)} faults")
    return 1 if wrong else 0


def make_pages(folder):
    """The repository's runs one by one and side by side, a short demo, hostile and missing records."""
    from report_pages import PAGES

    runs = ROOT / "benchmarks" / "results" / "cifar10-jpeg-width16"
    judged = ROOT / "benchmarks" / "results" / "autoattack" / "width16-1000.json"
    command([*map(str, (runs, judged))], folder / "table")
    for name in ("standard", "one-step"):
        command([str(runs / name)], folder / name)
    run = [sys.executable, "-m", "robust_adapt", "demo", "--epochs", "2", "--out", str(folder / "demo")]
    subprocess.run(run, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), encoding="utf-8", errors="surrogateescape")
    return sorted(folder.glob("*.html")) + sorted(folder.glob("*/*.html"))


def command(runs, out):
    """``robust-adapt report`` on records alone, wherever the data are."""
    run = [sys.executable, "-m", "robust_adapt", "report", *runs, "--out", str(out)]
    subprocess.run(run, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def faults(page, path, pictures=None):
    """A sentence for each thing that is wrong with a page."""
    if path.stat().st_size > 3_000_000:
        yield f"{path.name}: {path.stat().st_size} bytes, more than 3 MB"
    for width in WIDTHS:
        for scheme in SCHEMES:
            page.open(path, width=width, scheme=scheme)
            where = f"{path.parent.name}/{path.name} at {width}, {scheme}"
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                page.picture(pictures / f"{path.parent.name}-{path.stem}-{width}-{scheme}.png")
            requests = 0
            for method, parameters in page.told():
                url = parameters.get("request", {}).get("url", "")
                if method != "Network.requestWillBeSent":
                    yield f"{where}: {method} {parameters}"
                elif not url.startswith("data:"):
                    requests += 1
            if requests != 1:
                yield f"{where}: {requests} requests, expected the file alone"
            for sentence in page.evaluate(f"({JUDGE})({CONTRAST}, {width})"):
                yield f"{where}: {sentence}"


if __name__ == "__main__":
    sys.exit(main())
