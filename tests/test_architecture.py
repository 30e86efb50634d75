"""Imports run one way and cost little, each library stays behind its module, and public names are documented."""

import ast
import graphlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "saereason"

ORDER = [
    {"stats", "features", "visible", "model", "machine", "loading", "hooks", "receipts", "runs", "progress", "stored"},
    {"prefixes", "writing", "together", "generate", "examples", "saes", "tasks", "executors"},
    {"metrics"},
    {"quality", "preflight", "publish", "training", "search", "steering"},
    {"effects"},
    {"mechanisms"},
    {"controls", "layers"},
    {"plots", "explorer", "report"},
    {"behaviours"},
    {"demo", "study"},
    {"cli"},
]
"""A module imports from its own group and from those above it."""

HOOKS = {"register_forward_hook", "register_forward_pre_hook"}
HEAVY = {"transformers", "transformer_lens", "sae_lens", "plotly", "peft"}


def module_of(path: Path) -> str:
    """The module or subpackage a file belongs to, such as `tasks`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = {path: ast.parse(path.read_text(encoding="utf8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {module_of(path) for path in SOURCES} - {"__init__"}
STUB = {
    alias.name: node.module
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
"""Public names, with the module each comes from."""


def absolute_imports(path: Path) -> Iterator[str]:
    """The dotted name of everything a file imports, wherever in the file: `torch`, `saereason.hooks.read`."""
    package = ("saereason", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(SOURCES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            source = (*base, *(node.module.split(".") if node.module else ()))
            yield from (".".join((*source, alias.name)) for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports from; a public name counts as the module that defines it."""
    names = [name.split(".") for name in absolute_imports(path)]
    found = set()
    for name in (name for name in names if name[0] == "saereason"):
        if len(name) == 1:  # `import saereason` opens everything
            found |= {module.split(".")[0] for module in STUB.values()}
        else:
            found.add(name[1] if name[1] in MODULES else STUB.get(name[1], name[1]).split(".")[0])
    return found - {module_of(path)}


def test_every_module_has_a_place():
    places = [module for group in ORDER for module in group]
    assert len(places) == len(set(places))
    assert set(places) >= MODULES, f"no place in ORDER for {sorted(MODULES - set(places))}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module):
    level = next(n for n, group in enumerate(ORDER) if module in group)
    allowed = set().union(*ORDER[: level + 1])
    for path in SOURCES:
        if module_of(path) == module:
            wrong = own_imports(path) - allowed
            assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


@pytest.mark.parametrize("group", ORDER, ids=lambda group: "-".join(sorted(group)))
def test_no_cycle_within_a_group(group):
    needs = {module: set() for module in group}
    for path in SOURCES:
        if module_of(path) in group:
            needs[module_of(path)] |= own_imports(path) & group
    assert set(graphlib.TopologicalSorter(needs).static_order()) == group  # raises CycleError


def test_imports_are_read_in_every_form(monkeypatch):
    path = PACKAGE / "tasks" / "imaginary.py"
    text = """
import saereason.runs
from saereason import hooks, measure
from saereason.stats import max_t
from .. import receipts
from ..layers.finding import shares
from . import prompts
from .prompts import ask
def late():
    from ..metrics import LogProb
    import torch
"""
    monkeypatch.setitem(SOURCES, path, ast.parse(text))
    assert own_imports(path) == {"runs", "hooks", "effects", "stats", "receipts", "layers", "metrics"}


def python(code: str) -> str:
    """What a new interpreter prints when it runs the code."""
    environment = {key: value for key, value in os.environ.items() if key != "EAGER_IMPORT"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(code: str) -> set[str]:
    """The top-level packages in memory after the code."""
    return set(python(f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


@pytest.mark.parametrize("code", ["import saereason", "import saereason; saereason.Feature; saereason.Model"])
def test_importing_costs_torch_at_most(code):
    assert not loaded_after(code) & HEAVY


def test_help_does_not_wait_for_torch():
    code = """
from typer.testing import CliRunner
from saereason.cli import app
result = CliRunner().invoke(app, ["--help"])
assert result.exit_code == 0 and "demo" in result.output, result.output
"""
    assert not loaded_after(code) & (HEAVY | {"torch"})


def test_a_public_name_is_never_the_module_of_that_name():
    same = sorted(name for name, module in STUB.items() if name == module)
    assert same
    code = f"""
import importlib, types
for name in {same}:
    importlib.import_module("saereason." + name)
import saereason
print(*[name for name in {same} if isinstance(getattr(saereason, name), types.ModuleType)])
"""
    assert python(code).split() == []


def files_where(found) -> set[str]:
    return {str(path.relative_to(PACKAGE)) for path, tree in SOURCES.items() if any(map(found, ast.walk(tree)))}


def files_that_import(library: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if any(name.split(".")[0] == library for name in absolute_imports(path))
    }


def test_only_plots_knows_plotly():
    assert {Path(path).parts[0] for path in files_that_import("plotly")} == {"plots"}


def test_only_saes_and_training_know_saelens():
    assert {Path(path).parts[0] for path in files_that_import("sae_lens")} == {"saes", "training"}


def test_only_hooks_registers_a_hook():
    found = files_where(lambda node: isinstance(node, ast.Attribute) and node.attr in HOOKS)
    assert {path.split("/")[0] for path in found} == {"hooks"}


def test_nothing_prints():
    def prints(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"

    assert files_where(prints) <= {"cli/shell.py", "progress.py"}


def test_public_names_are_sorted():
    import saereason

    assert saereason.__all__ == sorted(STUB)


@pytest.mark.parametrize("name", sorted(STUB))
def test_public_name_resolves_and_is_documented(name):
    import saereason

    value = getattr(saereason, name)
    assert value is getattr(importlib.import_module(f"saereason.{STUB[name]}"), name)
    # a dataclass without a docstring is given its signature for one
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")
