"""The command line: a thin layer of calls; whatever is heavy is imported by the command that needs it."""

import typer

from .compare import compare
from .features import features
from .layers import layers
from .saes import check, publish
from .search import challenge, search
from .shell import example_of
from .steer import steer
from .story import demo
from .sweep import sweep
from .train import teach, train

__all__ = ["app"]

EXAMPLES = {
    demo: "demo --quick --out runs/look",
    train: "train --layers 10,14 --n-tokens 200000 --out runs/train",
    check: "check --saes runs/train/saes --quick",
    search: "search --saes smollm2-135m --out runs/search.parquet",
    challenge: "challenge cot-mode --layers 14,24 --top 1",
    steer: 'steer "3 plus 4?" --saes smollm2-135m --feature L14/3021 --add 80',
    sweep: "sweep docs/dose.yaml --set n=50 --dry-run",
    layers: "layers --n 50 --dry-run",
    compare: "compare --suite quick --out runs/compare",
    teach: "teach --problems 1200 --out runs/taught",
    publish: "publish --saes runs/train/saes --to hub --data poems --licence mit",
}
"""A line of each command, in the order in which `--help` lists them."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which SAE features does a language model use when it reasons, at which layers, and can you switch them?",
    epilog="Every command takes --json and then prints its result as one JSON document. "
    "Each one's --help ends with an example.",
)
for command, example in EXAMPLES.items():
    app.command(epilog=example_of(example))(command)
app.add_typer(features, name="features")
