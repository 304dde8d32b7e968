"""Reports: records in, text and pictures out."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from robust_adapt import reporting
from robust_adapt.ball import Ball
from robust_adapt.errors import ConfigError
from robust_adapt.records import AttackRecord, EpochRecord, EvaluationRecord, StepRecord
from robust_adapt.reporting.dossier import Case, Prediction


def attack(name, correct, n=100, eps=8 / 255, norm="Linf", mean_l2=0.5):
    share = correct / n
    return AttackRecord(
        name=name, norm=norm, eps=eps, steps=20, step_size=2 / 255, note="a | note", n=n, correct=correct,
        accuracy=share, low=max(0, share - 0.1), high=min(1, share + 0.1), success_rate=1 - share,
        unchanged_share=0.0, mean_l2=mean_l2, seconds=1.0,
    )  # fmt: skip


def evaluation(model, correct, **changes):
    values = {
        "model": model, "weights_sha256": "ab" * 32, "data": "CIFAR-10 (JPEG copy)", "split": "test", "n": 100,
        "norm": "Linf", "eps": 8 / 255, "seed": 0,
        "attacks": [attack("PGD-20", correct), attack("CW", correct, eps=None, norm="L2")],
        "worst_case": attack("Worst case", correct), "device": "cpu", "versions": {"torch": "2"}, "commit": None,
        "seconds": 1.0, "config": {},
    }  # fmt: skip
    return EvaluationRecord(**(values | changes))


def test_the_table_holds_every_condition_the_gain_and_the_article():
    text = reporting.markdown_table([evaluation("standard", 10), evaluation("deepseek", 40)])
    row = next(line for line in text.splitlines() if line.startswith("| PGD-20"))
    assert row == (
        "| PGD-20 | Linf | 8/255 | 20 x 2/255 | 100 | 10.0 [0.0, 20.0] | 40.0 [30.0, 50.0] | +30.0 (+300 %) | "
        "9.7 -> 37.5 (287 %) |"
    )
    assert "| CW | L2 | none |" in text
    assert "40.0 [30.0, 50.0] (L2 0.50)" in text
    assert "CIFAR-10 (JPEG copy) is not a leaderboard's own test set: not comparable with leaderboards." in text


def test_the_official_data_are_not_called_incomparable():
    text = reporting.markdown_table([evaluation("standard", 10, data="CIFAR-10")])
    assert "not comparable" not in text and "Article:" in text
    for title in ("CIFAR-100", "ImageNet (Res256Crop224)"):
        text = reporting.markdown_table([evaluation("standard", 10, data=title)])
        assert "not comparable" not in text and "Article:" not in text and "37.5" not in text
    text = reporting.markdown_table([evaluation("standard", 10, data="digits")])
    assert "digits is not a leaderboard's own test set" in text and "article" not in text.lower()


def test_the_article_s_note_needs_a_row_of_it():
    text = reporting.markdown_table([evaluation("standard", 10, attacks=[attack("BIM-10", 10)])])
    assert "Article:" not in text


def test_a_gain_over_nothing_is_in_points():
    text = reporting.markdown_table([evaluation("standard", 0), evaluation("deepseek", 40)])
    assert "| +40.0 |" in text


def test_evaluations_with_other_rows_are_refused():
    other = evaluation("b", 1, attacks=[attack("FGSM", 1)])
    with pytest.raises(
        ConfigError, match=r"^Expected evaluations with the same rows, but got .*; evaluate them alike\.$"
    ):
        reporting.table_rows([evaluation("a", 1), other])


def test_a_row_on_other_numbers_of_images_says_all_of_them():
    rows = [attack("PGD-20", 1, n=4), attack("CW", 1)]
    _, table = reporting.table_rows([evaluation("a", 1, attacks=rows), evaluation("b", 1)])
    assert [row[4] for row in table] == ["4 / 100", "100", "100"]


def test_evaluations_under_other_budgets_are_refused():
    other = evaluation("b", 1, norm="L2", eps=0.5)
    with pytest.raises(ConfigError) as caught:
        reporting.table_rows([evaluation("a", 1), other])
    assert str(caught.value) == (
        "Expected evaluations under one budget, but got Linf 8/255, L2 0.5; evaluate them alike."
    )


A, B = "a1" * 32, "b2" * 32
UNLIKE = {
    "images": (
        {"images_sha256": B},
        "on the same images, but got 100 images of the test split of mine (sha256 a1a1a1a1a1a1), "
        "100 images of the test split of mine (sha256 b2b2b2b2b2b2)",
    ),
    "data of unknown images": (
        {"images_sha256": "", "data": "yours"},
        "on the same images, but got 100 images of the test split of mine (sha256 a1a1a1a1a1a1), "
        "100 images of the test split of yours",
    ),
    "n": (
        {"n": 50},
        "on the same images, but got 100 images of the test split of mine (sha256 a1a1a1a1a1a1), "
        "50 images of the test split of mine (sha256 a1a1a1a1a1a1)",
    ),
    "split": (
        {"split": "validation"},
        "on the same images, but got 100 images of the test split of mine (sha256 a1a1a1a1a1a1), "
        "100 images of the validation split of mine (sha256 a1a1a1a1a1a1)",
    ),
    "seed": ({"seed": 3}, "from the same seed, but got 0, 3"),
    "steps": (
        {"attacks": [dataclasses.replace(attack("PGD-20", 1), steps=7), attack("CW", 1, eps=None, norm="L2")]},
        "with the same steps, but got ['PGD-20 20 x 2/255', 'CW 20 x 2/255'], ['PGD-20 7 x 2/255', 'CW 20 x 2/255']",
    ),
}


MEND = {"n": "run `robust-adapt evaluate RUN --n 100 --eps 8/255` for the one with fewer"}


@pytest.mark.parametrize("unlike", UNLIKE)
@pytest.mark.parametrize("place", [1, 2])
def test_what_does_not_belong_together_is_refused_in_every_table(unlike, place):
    changes, said = UNLIKE[unlike]
    records = [evaluation(name, 1, data="mine", images_sha256=A) for name in "abc"]
    records[place] = dataclasses.replace(records[place], **changes)
    for table in (
        reporting.table_rows, reporting.markdown_table, reporting.terminal_table, lambda some: page_of(some),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            table(records)
        assert str(caught.value) == f"Expected evaluations {said}; {MEND.get(unlike, 'evaluate them alike')}."


def test_images_whose_hash_a_record_lacks_are_known_by_their_title():
    records = [evaluation("a", 1, images_sha256=A), evaluation("b", 1), evaluation("c", 1, images_sha256=A)]
    assert len(reporting.table_rows(records)[1]) == 3
    records[2] = dataclasses.replace(records[2], images_sha256=B)
    with pytest.raises(ConfigError, match="^Expected evaluations on the same images, but got 100 images of "):
        reporting.table_rows(records)


def test_the_conditions_are_those_of_every_record():
    one = evaluation("a", 1, data="mine", images_sha256=A, versions={"torch": "2.1", "torchattacks": "3"}, commit="c1")
    two = dataclasses.replace(one, data="copy", versions={"torch": "2.2", "torchattacks": "3"}, commit=None)
    two = dataclasses.replace(two, device="cuda:0", worst_case=dataclasses.replace(two.worst_case, note="another"))
    text = reporting.conditions([one, two])
    assert text[0].startswith("Accuracy in percent on 100 images of the test split of mine and copy (a fixed,")
    assert text[1] == "mine and copy is not a leaderboard's own test set: not comparable with leaderboards."
    assert text[3] == "PGD-20: a | note; CW: a | note; Worst case: a | note; Worst case: another."
    assert text[-1] == (
        "torch 2.1, torchattacks 3 and torch 2.2, torchattacks 3; evaluated on cpu at commit c1 and cuda:0 at commit "
        "unknown."
    )
    assert reporting.conditions([one])[-1] == "torch 2.1, torchattacks 3; evaluated on cpu at commit c1."


def test_every_line_of_a_csv_says_its_own_conditions():
    other = {"data": "yours", "images_sha256": B, "split": "validation", "seed": 3, "device": "cuda:0"}
    records = [evaluation("a", 1, images_sha256=A), evaluation("b", 1, commit="c1", versions={"x": "1"}, **other)]
    rows = list(csv.DictReader(io.StringIO(reporting.csv_table(records))))
    for name, value in {**other, "commit": "c1", "versions": "x 1"}.items():
        assert {row[name] for row in rows if row["model"] == "b"} == {str(value)}
        assert {row[name] for row in rows if row["model"] == "a"} != {str(value)}


def test_names_cannot_inject_into_the_terminal():
    console = Console(file=io.StringIO(), width=200)
    console.print(reporting.terminal_table([evaluation("[red]x[/red]", 1)]))
    assert "[red]x[/red]" in console.file.getvalue()


def test_csv_has_a_line_an_attack_and_model():
    rows = list(csv.DictReader(io.StringIO(reporting.csv_table([evaluation("a", 1), evaluation("b", 2)]))))
    assert [(row["model"], row["name"], row["correct"]) for row in rows] == [
        ("a", "PGD-20", "1"), ("a", "CW", "1"), ("a", "Worst case", "1"),
        ("b", "PGD-20", "2"), ("b", "CW", "2"), ("b", "Worst case", "2"),
    ]  # fmt: skip


def test_an_evaluation_survives_json():
    record = evaluation("a", 1)
    assert EvaluationRecord.from_dict(record.to_dict()) == record


def test_curves_and_cases_are_pictures(tmp_path):
    common = {
        "step": 10, "epoch": 0, "eps": 0.01, "loss": 1.0, "clean_loss": 0.9, "adv_loss": 1.0, "clean_accuracy": 0.5,
        "adv_accuracy": 0.4, "consistency": None, "feature_norm": None, "learning_rate": 0.1, "unchanged_share": 0.0,
        "attacks": {},
    }  # fmt: skip
    epoch = EpochRecord(
        **common, validation_clean=0.5, validation_adversarial=0.3, validation_attack="PGD-10", validation_n=10,
        best=True, seconds=1.0, cpu_seconds=1.0,
    )  # fmt: skip
    reporting.draw_curves({"$x_1$": ([epoch], [StepRecord(**common)])}, tmp_path / "curves.png")
    picture = np.zeros((8, 8, 3), dtype=np.float32)
    answers = {
        "clean": {"a": Prediction(label="<b>", confidence=0.5)},
        "attacked": {"a": Prediction(label="$", confidence=1.0)},
    }
    case = Case(label="airplane", images={"clean": picture, "attacked": picture + 0.03}, answers=answers)
    reporting.draw_cases([case], tmp_path / "cases.png", Ball("Linf", 8 / 255))
    reporting.draw_cases([case], tmp_path / "cases-l1.png", Ball("L1", 12))
    for name in ("curves.png", "cases.png", "cases-l1.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def page_of(records):
    return reporting.html_page([reporting.Dossier(name=record.model, evaluation=record) for record in records])


def test_the_page_holds_the_table_and_escapes_every_name():
    page = page_of([evaluation("standard", 10), evaluation("<script>alert(1)</script>", 40)])
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    every_attack = page[page.index('id="attacks"') :].partition("</section>")[0]
    assert every_attack.count("<tr") == 1 + 3
    assert "http:" not in page and "https:" not in page  # nothing is fetched
