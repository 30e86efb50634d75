"""Figures as files: pages that need no network, and images through kaleido, in one browser for all of them."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from packaging.version import Version
from plotly.graph_objects import Figure

from saereason.runs import Run, installed

from .look import CLEAR
from .page import save_page

FORMATS = ("html", "png", "svg")
WIDTH = 700
"""Of an image, in CSS pixels; a PNG has twice as many."""

LEAST = Version("1.3")
"""Before it a figure that fails is not told from one that is written."""

INSTALL = "install it with `pip install 'saereason[export]'`"


def save_figures(figures: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = ("html",)) -> list[Path]:
    """Write figures, by name, as `folder/name.format`; returns the paths. If one fails none is written.

    An HTML page is one file that draws itself without a network. SVG and PNG need the extra `export` (kaleido) and
    Chrome or Chromium, which is started once for all figures. Raises ValueError for other formats, for names that are
    no names of files, and where kaleido or a browser is missing.
    """
    _check(figures, formats)
    kaleido = _kaleido() if {*formats} - {"html"} else None
    run = Run.open(folder)
    with tempfile.TemporaryDirectory(prefix=".figures-", dir=run.folder) as made:
        files = {(name, kind): Path(made) / f"{name}.{kind}" for name in figures for kind in dict.fromkeys(formats)}
        for (name, kind), path in files.items():
            if kind == "html":
                save_page(figures[name], path)
        if kaleido is not None:
            _images(kaleido, {path: figures[name] for (name, kind), path in files.items() if kind != "html"})
        for path in files.values():
            path.chmod(0o644)
        return [path.replace(run.folder / path.name) for path in files.values()]


def _check(figures: Mapping[str, Figure], formats: Sequence[str]) -> None:
    wrong = [kind for kind in formats if kind not in FORMATS]
    if isinstance(formats, str) or wrong or not formats:
        raise ValueError(f"formats are {formats!r}; give a list of some of {', '.join(FORMATS)}.")
    for name in figures:
        if not name or Path(name).name != name or "\\" in name or "\0" in name or name.startswith("."):
            raise ValueError(
                f"a figure is called {name!r}, which is no name of a file; leave out slashes and the like."
            )


def _kaleido() -> Any:
    """The module kaleido, of a version that starts one browser for many figures and says what went wrong."""
    there = installed("kaleido")
    if there is not None and Version(there) < LEAST:
        raise ValueError(f"kaleido is of version {there} and SVG and PNG need {LEAST} or later; {INSTALL}.")
    try:
        return import_module("kaleido")
    except ImportError as error:
        raise ValueError(f"SVG and PNG need kaleido, which is not there; {INSTALL}.") from error


def _on_white(figure: Figure) -> Figure:
    """A page shows through a figure without a ground of its own; an image is looked at on any ground."""
    if figure.to_dict()["layout"].get("paper_bgcolor") not in (None, CLEAR):
        return figure
    return type(figure)(figure).update_layout(paper_bgcolor="white")


def _images(kaleido: Any, figures: Mapping[Path, Figure]) -> None:
    """Every figure as an image, the format being the ending of its path."""
    errors = import_module("choreographer.errors")
    jobs = [
        {
            "fig": _on_white(figure),
            "path": path,
            "opts": {
                "format": path.suffix[1:],
                "width": figure.to_dict()["layout"].get("width", WIDTH),
                "scale": 2 if path.suffix == ".png" else 1,
            },
        }
        for path, figure in figures.items()
    ]
    try:
        # without cancel_on_error failures are silent; MathJax would be fetched from a network
        kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"mathjax": False})
    except (errors.ChromeNotFoundError, errors.BrowserFailedError, errors.BrowserClosedError) as error:
        said = str(error.args[0] if error.args else error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise ValueError(
            f"SVG and PNG need a browser, and none could be started ({said}); install Chrome or Chromium, such as with "
            "`apt-get install chromium`, or name one in BROWSER_PATH."
        ) from error
    empty = [path.name for path in figures if not path.is_file() or not path.stat().st_size]
    if empty:
        raise RuntimeError(f"kaleido wrote nothing for {', '.join(empty)}.")
