"""The examples of the documentation run, and do what they say."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def test_own_loop_trains_and_judges_the_averaged_model():
    main = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]
    clean, robust = main(epochs=3, width=4)
    assert clean > 0.3
    assert 0 <= robust <= clean
