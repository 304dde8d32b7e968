"""``robust-adapt submit``: the folder of a submission to RobustBench."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from robust_adapt.cli.terminal import Answer, RunFolder, TrustCode, read


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """Weights in the zoo's form, the entry, the filled form and the evaluation of a run, ready for RobustBench."""

    run: RunFolder
    benchmark: Path
    """Folder or file that `robust-adapt benchmark RUN` wrote for these weights."""
    name: str
    """The zoo's name of the model, such as Author2026Title_R18."""
    title: str
    """Title of the paper."""
    authors: str
    """Its authors."""
    link: str
    """Where it is."""
    venue: str = "Unpublished"
    """Where it was published."""
    architecture: str | None = None
    """By default the run's."""
    checkpoint: str = "attached"
    """Where the weights can be downloaded."""
    code: str = "to be added"
    """Where the code is."""
    draft: bool = False
    """Also where the evaluation is not the leaderboard's; the form says so on top."""
    trust_code: TrustCode = False
    out: Path | None = None
    """Folder of the submission; by default RUN/submission."""


def submit(arguments: Sequence[str]) -> Answer:
    """A submission to RobustBench: robust-adapt submit RUN --benchmark DIR --name NAME --title TITLE ..."""
    options = read(SubmitOptions, arguments, "submit")
    from robust_adapt import leaderboard, models, runs

    run = runs.load_run(options.run, trust_code=options.trust_code)
    record = leaderboard.read_benchmark(options.benchmark)
    settings = run.config.model
    about = {field.name: getattr(options, field.name) for field in dataclasses.fields(leaderboard.Paper)}
    about["architecture"] = options.architecture or settings.title
    plain_code = not settings.size and not models.is_of_library(settings.name)
    folder = leaderboard.submit(
        run.model,
        record,
        leaderboard.Paper(**about),
        options.out or options.run / "submission",
        source=leaderboard.model_source(settings.name, run.model) if plain_code else None,
        draft=options.draft,
    )
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return Answer(record={}, folder=folder, files=files)
