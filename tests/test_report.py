"""The page about runs: what it holds, what it lacks, and what no name can do to it."""

import dataclasses
import functools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_pages import EPS, HASH, PAGES, benchmark, dossier, evaluation, gallery

from robust_adapt import cli, runs
from robust_adapt.ball import Ball
from robust_adapt.config import ModelConfig
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.evaluation import eps_curve
from robust_adapt.leaderboard import place, published
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import write_json
from robust_adapt.reporting import Dossier, html_page
from robust_adapt.reporting.classes import by_class
from robust_adapt.reporting.page import headline
from robust_adapt.reporting.sections import PICTURES, training

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TABLE = RESULTS / "cifar10-jpeg-width16"
NO_CHARTS = {"epochs": (), "steps": (), "curve": None}  # they take a second
VOID = {"meta", "img", "input", "br"}


class Reader(HTMLParser):
    """Every element of a page with its attributes, its text, and whether all that opens closes."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@functools.cache
def read(name):
    page = PAGES[name]()
    return page, Reader(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_hard_page_is_whole_small_and_fetches_nothing(name):
    page, reader = read(name)
    assert len(page.encode(errors="surrogateescape")) < 3_000_000
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "link", "iframe", "object", "form", "base"}
    for tag, attributes in reader.elements:
        assert not {name for name in attributes if name.startswith("on")}, attributes
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#") and attributes.get("xlink:href", "#").startswith("#")
        assert "url(" not in attributes.get("style", "") and (tag != "img" or attributes["alt"])
        assert tag != "th" or attributes["scope"] in ("row", "col")
    assert "default-src 'none'" in page and "url(" not in re.sub(r'clip-path="url\(#\w+\)"', "", page)
    assert "\x1b" not in page and "\u202e" not in page


def test_names_are_shown_and_do_nothing():
    page, reader = read("hostile")
    assert "49" not in re.findall(r"</script>\S*", page) and "alert(1)" in reader.words
    assert "<script" not in page and "{{ 7*7 }}" in reader.words
    assert [tag for tag, _ in reader.elements].count("style") == 1


def test_a_hundred_classes_of_three_runs():
    _, reader = read("hundred_classes")
    assert reader.words.count("class 49") == 2  # under the worst case and AutoAttack
    assert "class 50" not in reader.words and reader.words.count("80 easier classes left out.") == 2
    assert all(model in reader.words for model in ("standard", "deepseek", "pgd"))
    assert sum(tag == "section" for tag, _ in reader.elements) == 8
    assert any(attributes.get("src", "").startswith("data:image/webp") for _, attributes in reader.elements)


def test_what_is_missing_has_no_section_and_no_figure():
    _, reader = read("gaps")
    assert "7 models under attack" in reader.words and "Not judged yet" in reader.words
    assert not {"cases"} & {attributes.get("id") for _, attributes in reader.elements}
    _, reader = read("not_numbers")
    assert "Under attack, broken keeps – %" in reader.words
    assert not re.search(r"\b(nan|inf)\b", reader.words)


def test_a_name_alone_is_a_page():
    reader = Reader(html_page([Dossier(name="one")]))
    assert [attributes["id"] for tag, attributes in reader.elements if tag == "section"] == ["record"]


def test_the_first_screen_holds_the_finding_and_its_conditions():
    dossiers = [
        dossier(name, correct, ["cat", "dog"], **NO_CHARTS, benchmark=benchmark("x", correct, ["cat", "dog"]))
        for name, correct in (("standard", 10), ("deepseek", 90))
    ]
    words = Reader(html_page(dossiers, None, published())).words
    first = words[: words.index("Under every attack")]
    assert "clean 5.0 10.0 to 90.0 190 apgd-ce 5.0 10.0 to 90.0 200 190" in words  # no attack meets the clean images
    assert "Under AutoAttack, standard keeps 5.0 % and deepseek keeps 45.0 %" in first
    for told in ("Clean 80.0 %", "Worst case 5.0 %", "AutoAttack 45.0 %", "n = 200", "14.2 → 48.7", "9.7 → 37.5"):
        assert told in first
    assert "budget Linf 8/255, one restart, seed 0, float32, exact." in first
    assert "not comparable with the leaderboard" in first.lower() and "5.3 → 29.1" in first


def test_a_headline_takes_the_strictest_figure_that_all_have():
    one, two = (
        dossier(name, correct, ["x"], benchmark=benchmark("x", correct, ["x"]))
        for name, correct in (("a", 10), ("b", 90))
    )
    assert headline([one, two]) == "Under AutoAttack, a keeps 5.0 % and b keeps 45.0 %"
    run = two.benchmark.autoattack
    for other in (
        dataclasses.replace(two.benchmark, data="other"),
        *(
            dataclasses.replace(two.benchmark, autoattack=dataclasses.replace(run, **changes))
            for changes in ({"norm": "L2"}, {"eps": 0.5}, {"version": "plus"}, {"n": 100}, {"exact": False})
        ),
    ):
        assert headline([one, dataclasses.replace(two, benchmark=other)]).startswith("Under attack, ")
    two = dataclasses.replace(two, benchmark=None)
    assert headline([one, two]) == "Under attack, a keeps 5.0 % and b keeps 45.0 %"
    two = dataclasses.replace(two, evaluation=None)
    assert headline([one, two]) == "Under PGD, a keeps 2.5 % and b keeps 22.5 %"
    for changes in ({"images_sha256": "other"}, {"norm": "L2"}):
        other = dataclasses.replace(two.curve, **changes)
        assert headline([one, dataclasses.replace(two, curve=other)]) == "a and b"
    assert headline([one, dataclasses.replace(two, curve=None)]) == "a and b"
    assert headline([one] * 4) == "4 models under attack"


def test_the_board_has_a_line_an_entry_and_one_a_model():
    page = html_page([dossier(*model, ["x"], **NO_CHARTS) for model in (("a", 90), ("b", 100))], None, published())
    strip = page[page.index('class="strip"') : page.index('class="ticks"')]
    assert strip.count("<i ") == len(published()) and strip.count("<b ") == 2
    assert "not comparable" in page.lower()


def test_a_model_of_another_board_is_not_drawn_on_this_one():
    one, two = (dossier(*model, ["x"], **NO_CHARTS) for model in (("a", 90), ("b", 100)))
    other = dataclasses.replace(two.benchmark, place=place(0.5, Ball("L2", 0.5), n=200, official=False))
    page = html_page([one, dataclasses.replace(two, benchmark=other)], None, published())
    strip = page[page.index('class="strip"') : page.index('class="ticks"')]
    assert strip.count("<b ") == 1 and "a published entry of the board cifar10 Linf" in page


def test_a_large_case_study_is_cut_to_the_size_of_a_page(monkeypatch):
    monkeypatch.setattr("robust_adapt.reporting.sections.PICTURES", PICTURES // 100)
    page = html_page([dossier("a", 90, ["cat", "dog"], **NO_CHARTS)], gallery(["a"], ["cat", "dog"]))
    assert page.count('class="case"') == 1 and "1 more left out for the size of this page." in page


def test_evaluations_that_are_not_alike_do_not_share_a_page():
    other = dossier("b", 1, ["x"], evaluation=evaluation("b", 1, ["x"], seed=3))
    with pytest.raises(ConfigError, match=r"^Expected evaluations from the same seed, but got 0, 3; evaluate them"):
        html_page([dossier("a", 1, ["x"]), other])


def test_two_classes_of_one_name_stay_two():
    tables = by_class([dossier("a", 150, ["cat", "cat", "dog"], benchmark=None)])
    assert list(tables[0]["classes"].items()) == [("0", "cat"), ("1", "cat"), ("2", "dog")]
    assert tables[0]["counts"] == {"0": 67, "1": 67, "2": 66} and tables[0]["left_out"] == 0


def test_a_config_that_is_no_run_s_is_left_out():
    for config in ({"lr": 1}, {"model": "net", "epochs": "many", "attack": "pgd"}, {"model": {"width": "x"}}):
        one = dossier("a", 10, ["x"], **NO_CHARTS, config=config, evaluation=evaluation("a", 10, config=config))
        assert "of width" not in html_page([one])


def test_a_card_names_the_model_as_the_table_does():
    training = {"epochs": 12, "batch_size": 128, "seed": 3}
    for model, title in (
        ({"name": "timm:vit", "width": 64, "size": 224}, "timm:vit, images resized to 224, 12 epochs"),
        ({"name": "ResNet18", "width": 16, "size": None}, "ResNet18 of width 16, 12 epochs"),
    ):
        config = {"model": model, **training}
        one = dossier("a", 10, ["x"], **NO_CHARTS, config=config, evaluation=evaluation("a", 10, config=config))
        assert Reader(html_page([one])).words.count(f"{title}, batch 128, seed 3") == 2


def test_the_curves_say_their_own_budget():
    one, two = (dossier(name, 90, ["x"], epochs=(), steps=(), benchmark=None) for name in "ab")
    half = dataclasses.replace(two.curve, eps=EPS / 2, points=two.curve.points[:3])
    words = Reader(html_page([one, dataclasses.replace(two, curve=half)])).words
    assert "PGD-20 from no budget to Linf 32/255, on 200 images; the budget is Linf 8/255." in words
    assert "PGD-20 from no budget to Linf 16/255, on 200 images; the budget is Linf 4/255." in words


def test_charts_follow_the_colours_of_the_page():
    page = html_page([dossier("a", 90, ["x"])])
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--m0)" in drawn and "currentColor" in drawn and "#0072b2" not in drawn and "#000000" not in drawn
    names = re.findall(r'id="(\w+)"', page)
    assert len(names) == len(set(names))


# accuracy over eps


def test_the_curve_over_eps_by_hand(channel_means, leads):
    """An image stands while its channel leads by more than 2 eps; the leads are 4, 4, 12, 12, 20, 20, 40, 40, 60."""
    record = eps_curve(channel_means, leads, Ball("Linf", 3.5 / 255), n=None)
    assert [point.eps for point in record.points] == [part * 3.5 / 255 for part in (0, 0.5, 1, 2, 3, 4)]
    assert [point.correct for point in record.points] == [9, 9, 7, 5, 3, 3]
    assert [point.name for point in record.points] == ["Clean"] + ["PGD-20"] * 5
    assert type(record).from_dict(record.to_dict()) == record


def test_a_curve_ends_where_all_pixels_may_change(channel_means, leads):
    record = eps_curve(channel_means, leads, Ball("Linf", 0.5), n=2)
    assert [point.eps for point in record.points] == [0, 0.25, 0.5, 1.0]
    with pytest.raises(ConfigError, match="^Expected `n` as a whole number"):
        eps_curve(channel_means, leads, Ball("Linf", 0.5), n=0)


# from folders


def test_the_repository_s_table_becomes_a_page(capsys, tmp_path):
    """Records alone: the data are not there, and standard and pgd have no weights."""
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.json").write_text((TABLE / "table.json").read_text())
    judged = RESULTS / "autoattack" / "width16-1000.json"
    found = runs.read_dossiers([TABLE, judged])
    assert [each.name for each in found] == ["standard", "deepseek", "pgd"]
    assert [bool(each.benchmark) for each in found] == [False, True, False]  # by the hash of its weights
    assert found[1].sanity.verdict == "pass" and len(found[1].epochs) == 13 and found[1].folder == TABLE / "deepseek"
    assert cli.main(["report", str(tmp_path / "table"), str(judged), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "report.html, report.md, report.csv, report.json" in " ".join(out.split())
    page = Reader((tmp_path / "out" / "report.html").read_text()).words
    assert out.splitlines()[:2] == ["making the page", "drawing the page"]
    assert "place 88 (interval 86 to 91) next to 99 entries" in page
    assert "Under attack, standard keeps 0.0 %, deepseek keeps 37.5 % and pgd keeps 33.5 %" in page
    records = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [record["worst_case"]["correct"] for record in records] == [0, 749, 669]


@pytest.mark.parametrize(("name", "attacks"), [("standard", False), ("pgd", True)])
def test_a_training_without_attacks_has_no_chart_of_their_eps(name, attacks):
    words = Reader(html_page(runs.read_dossiers([TABLE / name]))).words
    assert "Training loss" in words and ("eps of the training attacks" in words) == attacks


def test_eps_of_two_norms_are_on_charts_of_their_own():
    """On one axis L2 0.5 would stand at 127.5 / 255 of Linf."""
    ours = [dossier(norm, 50, ["cat"], config={"attack": {"norm": norm}}, curve=None) for norm in ("Linf", "L2")]
    charts = training(ours)
    units = {title: re.findall(r">(eps[^<]*)<", svg) for title, svg in charts.items() if title.startswith("eps")}
    assert units == {
        "eps of the training attacks, Linf": ["eps, 1/255"],
        "eps of the training attacks, L2": ["eps"],
    }
    assert list(training(ours[1:]))[2] == "eps of the training attacks"


def test_runs_of_one_recipe_are_told_apart(tmp_path):
    names = [each.name for each in runs.read_dossiers([TABLE / "pgd", TABLE / "one-step", TABLE / "standard"])]
    assert names == ["pgd, pgd", "pgd, one-step", "standard"]


def test_what_is_no_run_is_said_in_a_sentence(capsys, tmp_path):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "Expected the record of a benchmark" in capsys.readouterr().err
    (tmp_path / "table.json").write_text('[{"model": 3}]')
    with pytest.raises(CheckpointError, match="^Expected the records of a table in .*table.json, but got: "):
        runs.read_dossiers([tmp_path])
    assert cli.main(["report"]) == 2
    assert " ".join(capsys.readouterr().err.split()).startswith("ConfigError Expected one or more run folders,")


def test_a_path_that_is_not_there_and_corruptions_have_their_own_words(capsys, tmp_path):
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2
    assert f"but there is no {tmp_path / 'nothing'}; give one that" in " ".join(capsys.readouterr().err.split())
    write_json(tmp_path / "corruptions.json", {"model": "a", "accuracies": {"frost": [0.5]}})
    for path in (tmp_path, tmp_path / "corruptions.json"):
        assert cli.main(["report", str(path)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "got one of corruptions" in said and f"leaderboard DATASET corruptions --add {path}`" in said


def test_two_benchmarks_of_the_same_weights_both_stay(tmp_path):
    write_json(tmp_path / "table.json", [evaluation("a", 1).to_dict()])
    for name, version in (("one", "standard"), ("two", "plus")):
        record = benchmark("x", 10, ["cat"])
        run = dataclasses.replace(record.autoattack, fingerprint={"weights": HASH}, version=version)
        write_json(tmp_path / f"{name}.json", dataclasses.replace(record, autoattack=run))
    found = runs.read_dossiers([tmp_path, tmp_path / "one.json", tmp_path / "two.json", tmp_path / "one.json"])
    assert [(each.name, each.benchmark.autoattack.version) for each in found] == [("a", "standard"), ("x", "plus")]


def test_records_of_other_weights_are_dropped():
    one = dossier("a", 10, ["x"])
    run = dataclasses.replace(one.benchmark.autoattack, fingerprint={"weights": HASH})
    one = dataclasses.replace(one, benchmark=dataclasses.replace(one.benchmark, autoattack=run))
    one = dataclasses.replace(one, sanity=dataclasses.replace(one.sanity, weights_sha256="other"))
    assert runs.of_weights(one, HASH) == dataclasses.replace(one, sanity=None)
    nothing = dict.fromkeys(("evaluation", "curve", "benchmark"))
    assert runs.of_weights(one, "other") == dataclasses.replace(one, **nothing)


# with weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = on_digits(recipe("standard"), epochs=1)
    config = dataclasses.replace(config, epochs=0.1, device="cpu", model=ModelConfig(width=2))
    return runs.train(config, tmp_path_factory.mktemp("trained") / "standard")


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("robust_adapt.runs.dossiers.MEASURED", 4)
    monkeypatch.setattr("robust_adapt.runs.study.POOL", 20)
    return Path(shutil.copytree(trained.folder, tmp_path / "standard"))


def test_a_curve_is_taken_again_where_its_attack_is_the_same(folder):
    run = runs.load_run(folder)
    data, ball = runs.load_own_data(run), Ball("Linf", 0.1)
    first = runs.measure_curve(run, data, ball, n=4)
    path, marked = folder / "eps_curve.json", dataclasses.replace(first, device="read from the file")
    last = first.points[-1]
    write_json(path, marked)
    assert runs.measure_curve(run, data, ball, n=4).device == "read from the file"
    for changes in (
        {"batch_size": first.batch_size + 1},
        {"points": [*first.points[:-1], dataclasses.replace(last, steps=last.steps + 1)]},
        {"points": [*first.points[:-1], dataclasses.replace(last, name="BIM-10")]},
    ):
        write_json(path, dataclasses.replace(marked, **changes))
        assert runs.measure_curve(run, data, ball, n=4).device == "cpu"


@pytest.mark.parametrize("device, here", [("cpu", "cpu"), ("cuda:99", "cpu")])
def test_a_run_is_measured_on_its_device_where_that_is_here(device, here, folder):
    run, asked = runs.load_run(folder), []
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, device=device))
    run.model.to = asked.append
    found, _ = runs.measure([Dossier(name="one")], {"one": run}, runs.load_own_data(run), Ball("Linf", 0.1))
    assert asked == [here] and found[0].curve.n == 4


def test_the_flags_of_the_data_change_those_of_the_run(folder, capsys, tmp_path):
    record = evaluation("standard", 1, weights_sha256=runs.measure_curve(*known(folder), n=4).weights_sha256)
    write_json(tmp_path / "table.json", [record.to_dict()])
    for number, named in enumerate((folder, tmp_path)):  # a table has no config of its own
        out = tmp_path / f"out{number}"
        assert cli.main(["report", str(named), "--data.subset", "100", "--out", str(out)]) == 0
        assert "No curve over eps" not in (out / "report.html").read_text()


def test_stale_records_are_left_out_where_the_data_are_missing(folder, tmp_path):
    write_json(folder / "evaluation.json", evaluation("standard", 1))
    words = ["report", str(folder), "--data.name", f"folder:{tmp_path / 'nowhere'}"]
    assert cli.main(words) == 0
    page = Reader((folder / "report.html").read_text()).words
    assert "Under every attack" not in page and "Left out of standard: records of other weights." in page
    assert "No curve over eps and no case study: Expected" in page


def test_evaluations_that_are_not_alike_are_refused_before_the_measurement(folder, capsys, tmp_path):
    own = runs.measure_curve(*known(folder), n=4).weights_sha256
    (folder / "eps_curve.json").unlink()
    write_json(folder / "evaluation.json", evaluation("standard", 1, weights_sha256=own))
    write_json(tmp_path / "table.json", [evaluation("b", 1, seed=3).to_dict()])
    assert cli.main(["report", str(folder), str(tmp_path / "table.json")]) == 2
    assert "Expected evaluations from the same seed" in capsys.readouterr().err
    assert not (folder / "eps_curve.json").exists()


def known(folder):
    """A run, its data and a budget."""
    run = runs.load_run(folder)
    return run, runs.load_own_data(run), Ball("Linf", 0.1)


def test_a_name_in_a_table_is_no_path(tmp_path):
    (tmp_path / "table").mkdir()
    write_json(tmp_path / "table" / "table.json", [evaluation(f"../{TABLE.name}", 1).to_dict()])
    assert runs.read_dossiers([tmp_path / "table"])[0].folder is None
