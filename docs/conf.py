"""Sphinx settings; `make docs` builds the pages into docs/_build/html."""

import re
from importlib import metadata
from typing import Any

project = "saereason"
release = metadata.version("saereason")
author = "the saereason authors"
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py", "_build", "jupyter_execute", "layers_tables.md"]  # the last is included in a page
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "saereason"
html_static_path: list[str] = []


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_to_rest)
    app.connect("autodoc-process-signature", without_reprs)


def plain_to_rest(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """In docstrings, single backticks hold code, and bars are absolute values, not substitutions."""
    parts = "\n".join(lines).split("`")  # the odd ones are code
    lines[:] = "``".join(part if n % 2 else part.replace("|", r"\|") for n, part in enumerate(parts)).split("\n")


def without_reprs(*event: Any) -> tuple[str | None, str | None]:
    """Defaults of dataclasses that are made anew, or are lambdas, show as an ellipsis."""
    signature, returns = event[-2:]
    return signature and re.sub(r"<factory>|<function \S*<lambda>>", "...", signature), returns
