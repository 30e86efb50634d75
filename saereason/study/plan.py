"""A sweep as a YAML file says it: one flat table of settings."""

import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from beartype.door import is_bearable

from saereason.effects import Trial, doses
from saereason.features import Feature
from saereason.loading import load_model
from saereason.machine import as_dtype
from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import (
    UNITS,
    Add,
    Boost,
    Clamp,
    Divergence,
    Intervention,
    Scale,
    SetProjection,
    moving,
    parse_when,
    short,
    unit_sizes,
)
from saereason.tasks import COT, DIRECT, Task, confirmation_task, discovery_task, load_benchmark, load_task
from saereason.training import plain_texts

OPERATORS: dict[str, type[Any]] = {
    "add": Add,
    "boost": Boost,
    "clamp": Clamp,
    "scale": Scale,
    "set-projection": SetProjection,
}
UNIT_PROMPTS = 16
"""Prompts on which sizes in other units than the operator's own are measured."""


POWER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""A number such as 1e3, which YAML takes for a text."""


class Once(yaml.SafeLoader):
    """YAML in which no table says a thing twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is given twice; give it once.")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Plan:
    """What to sweep: every feature in every size at every choice of positions, on one task.

    Raises ValueError for a setting that cannot be.
    """

    features: tuple[str, ...]
    """Such as `L24/4330`."""

    sizes: tuple[float, ...]
    model: str = "smollm2-135m"
    adapter: str | None = None

    dtype: str | None = None
    """`float32`, or `bfloat16`; without it bfloat16 where that is fast."""

    saes: str = "smollm2-135m"

    task: str = "confirmation"
    """`confirmation` or `discovery` (word problems), a JSON-lines file, or a benchmark's name."""

    source: str | None = None
    """The file of a benchmark; without it the hub is asked."""

    part: str | None = None
    n: int = 100

    instruction: str | None = "direct"
    """`direct`, `cot`, a text of its own, or null for none."""

    max_new_tokens: int = 96
    operator: str = "add"

    unit: str = "own"
    """What a size of 1 is: 1 in the operator's own unit; the feature's largest activation on plain texts and prompts;
    what moves the residual stream by its mean norm there; or one nat of KL from the clean model, averaged over prompts.
    """

    when: tuple[str, ...] = ("last-prompt-token",)

    plain: int = 16
    """Plain English texts for the damage; 0 for none."""

    rows_at_once: int = 96

    may_be_silent: bool = False
    """Whether an arm may never fire, as one at a step that no answer reaches."""

    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("operator", sorted(OPERATORS)), ("unit", list(UNITS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {known}.")
        if self.dtype is not None:
            as_dtype(self.dtype)
        if not self.features or not self.sizes or not self.when:
            raise ValueError("features, sizes and when must each have at least one entry.")
        for name in ("features", "sizes", "when"):
            row = getattr(self, name)
            twice = next((one for one in row if row.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"{name} has {twice} twice; give each once.")
        if not all(map(math.isfinite, self.sizes)):
            raise ValueError(
                f"sizes are {', '.join(f'{size:g}' for size in self.sizes)}; each must be a finite number."
            )
        number = {"scale": "factor", "boost": "alpha"}.get(self.operator)
        if number is not None and self.unit not in ("own", *(["nats"] if self.operator == "boost" else [])):
            raise ValueError(
                f"the {number} of {self.operator} has no unit, and {self.unit} was asked for; leave unit out."
            )
        if self.unit == "nats" and min(self.sizes) <= 0:
            raise ValueError(f"sizes in nats must be positive, and {min(self.sizes):g} is there.")
        if self.n < 1 or self.plain < 0:
            raise ValueError(f"n is {self.n} and plain {self.plain}; there must be at least 1 item and 0 texts.")
        for name in ("max_new_tokens", "rows_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        own = self.task in ("confirmation", "discovery") or self.task.endswith(".jsonl")
        if own and (self.source is not None or self.part is not None):
            raise ValueError(f"source and part are of benchmarks, and task is {self.task!r}; leave them out.")

    @classmethod
    def read(cls, path: Path, changes: Sequence[str] = ()) -> "Plan":
        """A plan from a YAML file, some settings changed (`sizes=[1, 2]`). Raises ValueError for what is no plan."""
        try:
            found = yaml.load(path.read_text(encoding="utf8"), Once)
            changed = [change.partition("=") for change in changes]
            given = {name.strip(): yaml.load(value, Once) for name, _, value in changed}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} and its changes are not YAML: {' '.join(str(error).split())}") from error
        for text, (_, sign, _) in zip(changes, changed, strict=True):
            if not sign:
                raise ValueError(f"{text!r} changes nothing; write a setting and its value, such as n=50.")
        if len(given) < len(changed):
            raise ValueError(f"{', '.join(changes)} change one setting twice; give each once.")
        if not isinstance(found, dict):
            raise ValueError(f"{path} has no table of settings; write lines such as `features: [L24/4330]`.")
        return cls.of({**found, **given})

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Plan":
        """A plan from settings as YAML has them: one value stands for a list of one."""
        fields: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in fields:
                near = get_close_matches(str(name), list(fields), 1)
                said = f"did you mean {near[0]}?" if near else f"there are {sorted(fields)}."
                raise ValueError(f"no setting {name!r}; {said}")
        missing = [name for name in ("features", "sizes") if name not in settings]
        if missing:
            raise ValueError(f"the plan has no {' and no '.join(missing)}; give lists of them.")
        values = {name: _as(fields[name], value) for name, value in settings.items()}
        for name, value in values.items():
            if not is_bearable(value, fields[name]) or isinstance(value, bool) != (fields[name] is bool):
                raise ValueError(f"{name} is {value!r:.80}; it must be {_kind(fields[name])}.")
        return cls(**values)

    def load_model(self) -> Model:
        return load_model(self.model, adapter=self.adapter, dtype=self.dtype)

    def load_task(self) -> Task:
        """The items, drawn by the seed."""
        if self.task == "confirmation":
            return confirmation_task(n=self.n, seed=self.seed)
        if self.task == "discovery":
            return discovery_task(None, n=self.n, seed=self.seed)
        if self.task.endswith(".jsonl"):
            return load_task(Path(self.task), direct=DIRECT, cot=COT).take(self.n)
        return load_benchmark(self.task, self.source, part=self.part, n=self.n, seed=self.seed)

    def trial(self, model: Model) -> Trial:
        task = self.load_task()
        named = {"direct": task.direct, "cot": task.cot}
        how = None if self.instruction is None else named.get(self.instruction, self.instruction)
        return Trial.of(model, task, how or None, max_new_tokens=self.max_new_tokens)

    def texts(self, model: Model) -> list[str]:
        """The first plain texts that fit into the model's context."""
        texts = plain_texts() if self.plain else []
        return list(
            islice(
                (text for text in texts if model.fits(text, spare=1)),
                self.plain,
            )
        )

    def interventions(self, model: Model, saes: Mapping[int, SAE], trial: Trial) -> list[Intervention]:
        """Every arm, with its size in its operator's own unit."""
        kind, places = OPERATORS[self.operator], [parse_when(when) for when in self.when]
        ones: list[Any] = []
        for feature in map(Feature.parse, self.features):
            target: Any = (feature,) if kind is Boost else feature
            ones.append(kind(target, 1.0))
            ones[-1].check(model, saes)
        if self.unit == "own":
            return doses(ones, self.sizes, places)
        prompts = trial.prompts[:UNIT_PROMPTS]
        if self.unit == "nats":
            budget, found = Divergence.over(model, prompts), [one.sized(1.0, place) for one in ones for place in places]
            return [moving(budget, saes, one, nats) for one in found for nats in self.sizes]
        units = unit_sizes(self.unit, model, saes, ones, [*prompts, *replace(self, plain=UNIT_PROMPTS).texts(model)])
        return [
            one.sized(short(size * unit), place)
            for one, unit in zip(ones, units, strict=True)
            for place in places
            for size in self.sizes
        ]


def _as(hint: Any, value: Any) -> Any:
    """A value of YAML's as the field wants it: tuples for lists, floats for whole numbers."""
    if get_origin(hint) is tuple:
        row = value if isinstance(value, list) else [value]
        return tuple(_as(get_args(hint)[0], one) for one in row)
    if hint is not float or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value) if abs(value) <= sys.float_info.max else value
    return float(value) if isinstance(value, str) and POWER.fullmatch(value) else value


def _kind(hint: Any) -> str:
    told = {
        tuple[str, ...]: "a list of texts",
        tuple[float, ...]: "a list of numbers",
        int: "a whole number",
        bool: "true or false",
    }
    return told.get(hint, "a text" if hint is str else "a text or null")
