"""Every notebook runs, on less of everything, and says what it is there to say."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SMALLER = {
    "1_quick_start": (
        {"N_TEXTS, N_PROBLEMS = [19], 400, 24": "N_TEXTS, N_PROBLEMS = [19], 100, 8"},
        "one feature, once",
    ),
    "2_saes": ({"14, 2304, 400, 24": "14, 1152, 60, 6"}, "does not fit|fits"),
    "3_find_and_challenge": ({"= 48, 12, 40, 1, 10, 24": "= 12, 4, 12, 1, 10, 4"}, "explorer.html"),
    "4_steer": ({"48, 24, 64, [0.5, 1.0, 2.0, 4.0]": "8, 4, 8, [1.0, 2.0]"}, "moves the next token by"),
    "5_layers": ({'"taught", 24': '"taught", 8'}, "reasoning|inconclusive|Inconclusive"),
    "6_mechanisms": ({"= 16, 48, 64": "= 8, 12, 8"}, "95% of chance below"),
    "7_your_own": ({"N, N_TOKENS = 24, 48": "N, N_TOKENS = 6, 8"}, "1 firings|2 firings"),
}


def test_every_notebook_is_run():
    assert sorted(SMALLER) == sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_was_executed_is_the_source(path):
    import jupytext

    done, source = jupytext.read(path), jupytext.read(path.with_suffix(".py"))
    assert [cell.source for cell in done.cells] == [cell.source for cell in source.cells]
    assert path.stat().st_size < 100_000 and any(cell.get("outputs") for cell in done.cells)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.filterwarnings("default")  # the notebooks' runner warns of its own; the code runs in another process
@pytest.mark.parametrize("name", SMALLER)
def test_a_notebook_runs(name, tmp_path):
    import re

    import jupytext
    from nbclient import NotebookClient

    smaller, says = SMALLER[name]
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf8")
    for shown, less in smaller.items():
        assert shown in text
        text = text.replace(shown, less)
    notebook = jupytext.reads(text, fmt="py:percent")
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    assert re.search(says, "".join(str(cell.get("outputs", "")) for cell in notebook.cells))
