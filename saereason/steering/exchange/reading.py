"""Files that anyone may have written: whatever is wrong with one is an error that names it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, EOFError)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Within the block, a file that is missing, damaged or of another kind raises ValueError with its name."""
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is no pickle of tensors and numbers alone, and others can run code; give {kind}."
        ) from error
    except (*DAMAGE, SafetensorError) as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise ValueError(f"{path} cannot be read ({reason}); give {kind}.") from error


def json_of(path: Path) -> Any:
    """The JSON in a file. Raises ValueError for NaN and infinities too, which are none."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number in JSON")

    return json.loads(path.read_text(encoding="utf8"), parse_constant=refuse)
