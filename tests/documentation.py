"""The documentation as its tests read it: pages, links, anchors, commands and Python snippets.

``python tests/documentation.py`` prints every address outside the repository, for somebody with a network to look at.
"""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALONE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
PAGES = [*(ROOT / name for name in ALONE), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("robust-adapt", "make", "python", "torchrun", "srun", "source", "benchmarks/gpu.sh")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page."""
    return re.findall(r"\]\(([^()\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """What a link to the page may name after its #: headings, as GitHub and Python-Markdown both write them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a page, as words; stands: in a block of its own, not in a sentence."""

    page: str
    words: tuple[str, ...]
    stands: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def arguments(self) -> tuple[str, ...] | None:
        """Of robust-adapt, by whatever it is started; None for other programs."""
        for place, word in enumerate(self.words):
            if word in ("robust-adapt", "robust_adapt"):
                return self.words[place + 1 :]
        return None


def commands() -> list[Command]:
    """Every command of every page but the history, from blocks without a language and from the text."""
    found = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        blocks = [block for language, block in FENCE.findall(page.read_text(encoding="utf-8")) if not language]
        lines = [(line, True) for line in _whole("".join(blocks)).splitlines()]
        spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]
        lines += [(span, False) for span in spans if span.startswith(("robust-adapt ", "make ", "python "))]
        split = [(tuple(shlex.split(line, comments=True)), stands) for line, stands in lines]
        found += [Command(name_of(page), words, stands) for words, stands in split if words]
    return list(dict.fromkeys(found))


def snippets() -> list[tuple[str, str]]:
    """Python of every page: ``(page, code)``; what is included from a file is tested as that file."""
    found = [(name_of(page), *each) for page in PAGES for each in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [(page, code) for page, language, code in found if language == "python" and "--8<--" not in code]


def _whole(block: str) -> str:
    """Lines of a shell, continued ones joined, and with a function's body in the place of its name."""
    block = re.sub(r" *\\\n *", " ", block)
    for name, body in re.findall(r"^(\w+)\(\) { (?:\w+=\S+ )*(.*); }$", block, re.MULTILINE):
        block = re.sub(rf"^{name}\(\) .*\n", "", block, flags=re.MULTILINE)
        block = re.sub(rf"^{name} +(.*)$", lambda call, body=body: body.replace('"$@"', call[1]), block, flags=re.M)
    return block


if __name__ == "__main__":
    print("\n".join(sorted({link for page in PAGES for link in links(page) if "://" in link})))
