"""The command line: a thin layer of calls; whatever is heavy is imported by the command that needs it."""

import typer

from .compare import compare
from .layers import layers
from .saes import check, publish
from .search import challenge, search
from .steer import steer
from .story import demo
from .sweep import sweep
from .train import teach, train

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which SAE features does a language model use when it reasons, at which layers, and can you switch them?",
)
for command in (demo, train, check, search, challenge, steer, sweep, layers, compare, teach, publish):
    app.command()(command)
