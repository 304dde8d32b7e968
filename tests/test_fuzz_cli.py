"""Bad input on the command line: one readable block, code 2, no traceback, no file."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from robust_adapt import cli
from robust_adapt.recipes import RECIPES

NO_NUMBER = st.sampled_from(["x", "", "nan", "inf", "-inf", "-1", "1e999", "1,5", "0x", "--", "9" * 400, "8/255", "٣x"])
NO_WHOLE = NO_NUMBER | st.floats(0.1, 0.9).map(str)
NO_EPS = st.sampled_from(["8", "-0.1", "8/0", "x", "nan", "inf", "1e999999999", "", "1/", "/255", "256/255", "0x1"])
NO_NAME = st.text("abcdefghijklmnopqrstuvwxyz-./<>[]$|`", min_size=1, max_size=12).filter(
    lambda text: text not in RECIPES
)
HOSTILE = st.sampled_from(
    ["\x1b[31mred", "a\nb", "\udcff", "\u202egpj", "\x07", "[red]x[/red]", "[/]", "<script>", "=1+1", "$(id)"]
)
TRAIN = {
    **dict.fromkeys(["--epochs", "--minutes", "--optimizer.learning-rate", "--checkpoint-minutes"], NO_NUMBER),
    **dict.fromkeys(["--attack.step-ratio", "--loss.clean-share", "--controller.ramp-end"], NO_NUMBER),
    **dict.fromkeys(["--batch-size", "--data.validation", "--model.width", "--log-every", "--attack.steps"], NO_WHOLE),
    **dict.fromkeys(["--seed", "--data.seed", "--evaluation.n", "--data.subset", "--validation-steps"], NO_WHOLE),
    **dict.fromkeys(["--controller.target", "--controller.start", "--controller.upper", "--evaluation.eps"], NO_EPS),
    **dict.fromkeys(
        ["--precision", "--attack.norm", "--attack.mode", "--optimizer.name", "--controller.rule"], NO_NAME
    ),
    **dict.fromkeys(["--loss.consistency-on", "--loss.distance", "--optimizer.schedule", "--data.flip"], NO_NAME),
}
DIGITS = ["--data.name", "digits", "--data.validation", "60", "--model.width", "4"]


def flags(table):
    return st.sampled_from(sorted(table)).flatmap(lambda flag: table[flag].map(lambda value: [flag, value]))


def lines():
    """Command lines that no command takes."""
    recipe = st.sampled_from(sorted(RECIPES))
    where = NO_NAME | HOSTILE | st.just("x" * 300)
    number = {"--n": NO_WHOLE, "--eps": NO_EPS}
    commands = st.sampled_from(sorted(cli.COMMANDS))
    return st.one_of(
        st.tuples(recipe, flags(TRAIN)).map(lambda drawn: ["train", drawn[0], *drawn[1]]),
        st.tuples(recipe, flags(TRAIN), HOSTILE).map(lambda drawn: ["train", drawn[0], *drawn[1], drawn[2]]),
        st.tuples(recipe, NO_NAME | HOSTILE).map(lambda drawn: ["train", drawn[0], f"--{drawn[1]}", "1"]),
        (NO_NAME | HOSTILE).filter(lambda name: not name.startswith("-")).map(lambda name: ["train", name]),
        NO_NAME.map(lambda name: ["train", "pgd", *DIGITS, "--data.name", f"no-{name}"]),
        NO_NAME.map(lambda name: ["train", "pgd", "--recipe", name]),
        (NO_NAME | HOSTILE).filter(lambda name: name not in cli.COMMANDS and name != "-h").map(lambda name: [name]),
        where.map(lambda name: ["evaluate", f"no/{name}"]),
        flags(number).map(lambda flag: ["evaluate", "nowhere", *flag]),
        flags({"--eps": NO_EPS, "--epochs": NO_NUMBER, "--seed": NO_WHOLE}).map(lambda flag: ["table", *flag]),
        where.map(lambda name: ["table", "--robust", f"no-{name}", *DIGITS, "--standard", "no-recipe"]),
        flags({"--epochs": NO_NUMBER, "--out": st.just("")}).map(lambda flag: ["demo", flag[0], flag[1], "--x"]),
        st.tuples(commands, where).map(lambda drawn: [drawn[0], "--no-such-flag", drawn[1]]),
        where.map(lambda name: ["compare", f"no-{name}", "nowhere"]),
        where.map(lambda name: ["leaderboard", f"no-{name}", "Linf"]),
        where.map(
            lambda name: ["submit", f"no-{name}", "--name", "A", "--title", "B", "--authors", "C", "--link", "D"]
        ),
        flags(number).map(lambda flag: ["benchmark", "nowhere", *flag, "--offline", *DIGITS]),
    )


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a command line in an empty folder; fail unless it ends in one block of text and code 2."""
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        try:
            code = cli.main(arguments)
        except SystemExit as stop:  # tyro's own refusals
            code = stop.code
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert code == 2, (arguments, code, text)
        assert text.strip() and len(text.splitlines()) <= 60, (arguments, text)
        assert "Traceback" not in text, (arguments, text)
        assert all(line.isprintable() for line in text.splitlines()), (arguments, text)
        assert not list(tmp_path.rglob("*")), (arguments, sorted(tmp_path.rglob("*")))

    return run


def sweep(refused, inputs):
    count = 0

    @settings(
        max_examples=inputs,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def one(arguments):
        nonlocal count
        count += 1
        refused(arguments)

    one()
    return count


def test_wrong_command_lines_are_refused_in_one_block(refused):
    assert sweep(refused, 40) == 40


@pytest.mark.slow
def test_many_wrong_command_lines(refused):
    assert sweep(refused, 600) == 600
