"""Interventions, and what they are made of, as JSON with tensors beside it, and back to the bit."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from sys import float_info
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
from torch import Tensor

from saereason import steering
from saereason.features import Feature

from ..checks import finite
from ..interventions import Intervention
from ..when import When

KINDS: dict[str, Any] = {
    name: kind
    for name, kind in {**vars(steering), "Feature": Feature}.items()
    if isinstance(kind, type) and is_dataclass(kind) and issubclass(kind, Intervention | When | Feature)
}
"""All that a file may name."""


def encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors go into `tensors`, by the names that the JSON gives them.

    Raises ValueError for an intervention or a `when` of a class that is not saereason's own.
    """
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, float):
        finite("a number to be saved", value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Tensor):
        name = f"tensor.{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, tuple | list):
        return [encoded(each, tensors) for each in value]
    kind = type(value).__name__
    if KINDS.get(kind) is not type(value):
        raise ValueError(f"a {kind} cannot be saved; give interventions and whens of saereason's own.")
    return {"type": kind, **{field.name: encoded(getattr(value, field.name), tensors) for field in fields(value)}}


def decoded(said: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `encoded` made this JSON of. Raises ValueError for what it cannot have made."""
    match said:
        case {"tensor": str(name)}:
            if name not in tensors:
                raise ValueError(f"there is no tensor {name!r:.60}")
            return tensors[name]
        case {"type": str(kind), **values}:
            return _built(kind, {name: decoded(value, tensors) for name, value in values.items()})
        case list():
            return tuple(decoded(each, tensors) for each in said)
        case _:
            return said


def _built(kind: str, values: dict[str, Any]) -> Any:
    """A value of a kind, once its fields are known to be those, and of the types, that the kind has."""
    if kind not in KINDS:
        raise ValueError(f"there is no intervention or when {kind!r:.60}")
    hints = {field.name: field.type for field in fields(KINDS[kind])}
    if values.keys() != hints.keys():
        raise ValueError(f"a {kind} with {sorted(values)!s:.200} should have {sorted(hints)}")
    if wrong := [name for name, value in values.items() if not _fits(value, hints[name])]:
        raise ValueError(f"the {wrong[0]} of a {kind} is {str(values[wrong[0]])!r:.60}, of a type that does not fit")
    return KINDS[kind](**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field is annotated with; numbers must be ones that torch can hold."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)
