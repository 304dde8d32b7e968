"""The published robust model loads, and is the one that the published table was measured on."""

import json
from pathlib import Path

import pytest

import robust_adapt
from robust_adapt import reporting
from robust_adapt.models import weights_hash
from robust_adapt.records import EvaluationRecord

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "cifar10-jpeg-width16"


def test_the_published_weights_are_those_of_the_table():
    run = robust_adapt.load_run(RESULTS / "deepseek")
    records = {record["model"]: record for record in json.loads((RESULTS / "table.json").read_text())}
    assert weights_hash(run.model) == records["deepseek"]["weights_sha256"]
    assert records["deepseek"]["data"] == "CIFAR-10 (JPEG copy)"


RECORDS = ["table.json", "deepseek/all_test_images.json", "deepseek/other_norms.json", "one-step/evaluation.json"]


@pytest.mark.parametrize("name", RECORDS)
def test_published_worst_cases_and_flags_say_what_is_true(name):
    read = json.loads((RESULTS / name).read_text())
    for record in map(EvaluationRecord.from_dict, read if isinstance(read, list) else [read]):
        worst, clean = record.worst_case, record.attacks[0]
        assert (clean.name, clean.n, worst.unchanged_share) == ("Clean", worst.n, None)
        assert worst.success_rate == (clean.correct - worst.correct) / clean.correct  # clean is in it
        for row in [*record.attacks, worst]:
            assert not row.flags or (len(row.flags), row.flags.count("1")) == (record.n, row.correct)


def test_the_published_table_is_that_of_its_records():
    records = [EvaluationRecord.from_dict(record) for record in json.loads((RESULTS / "table.json").read_text())]
    table = (RESULTS / "table.md").read_text()
    assert reporting.markdown_table(records).split("\n\n")[0] == table.split("\n\n")[0]


def test_autoattack_was_bit_identical_on_the_published_weights():
    record = json.loads((RESULTS.parent / "autoattack" / "identity-width16-200.json").read_text())
    assert record["n"] == 200 and record["flags_equal"] and record["images_equal"]
    published = robust_adapt.load_run(RESULTS / "deepseek").model
    assert record["autoattack"]["fingerprint"]["weights"] == weights_hash(published)


def test_the_article_s_rule_ends_at_its_bound_and_says_so():
    """The run that docs/epsilon.md tells of: 250 steps of ``literal`` from a standard model on real images."""
    folder = RESULTS.parent / "literal-from-standard"
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [round(255 * step["eps"], 1) for step in steps] == [35.1, 50.3, 67.4, 76.5, 76.5]
    last = json.loads((folder / "epochs.jsonl").read_text())
    assert last["step"] == 250 and last["eps"] == 0.3
    assert last["warnings"] == [
        "eps has been at its bound 0.3 (76.5/255) for 20 steps: the rule 'literal' feeds back positively; use 'ramp' "
        "or 'ramp-trim' for training."
    ]


@pytest.mark.parametrize(
    ("run", "eps"),
    [("from-standard-heavy", [30.0, 34.1, 36.0, 37.6, 39.1]), ("light", [15.4, 18.5, 22.0, 25.8, 29.5])],
)
def test_start_and_weight_of_r_both_matter_to_the_article_s_rule(run, eps):
    """The runs of docs/epsilon.md that differ from the two others in one of them alone."""
    steps = (RESULTS.parent / f"literal-{run}" / "steps.jsonl").read_text().splitlines()
    assert [round(255 * json.loads(line)["eps"], 1) for line in steps] == eps
