"""Families of both kinds, the operators of the battery, the parts beside it, and how much of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from saereason.layers import (
    Family,
    MeanOfBlock,
    Operator,
    SkipBlock,
    SkipByGradient,
    SkipPart,
    SpliceSAE,
    family_of,
    generated_tasks,
    plain_family,
    published_tasks,
)
from saereason.layers.families import fitting, scored_alike
from saereason.model import Model
from saereason.saes import SAE
from saereason.tasks import Task

DEFAULT, ALL = "default", "all"
"""What may stand for names of families or operators."""

MEAN_TEXTS = 32
"""Plain texts that the mean contribution of a block is of."""

PARTNERS, PROBED = 600, 200
"""Items that partners to patch with are found among, and that probes are of, where a task has as many."""

FEWEST_PLAIN = 50
"""Plain texts, at least: by these it is decided which layers no text can do without."""

MAPPED = 3
"""Results of an item that are mapped."""

FEATURES, PATCHING, PROBES, STEPS = "features", "patching", "probes", "steps"
GRADED, THOUGHT, SIMILAR = "graded answers", "fast and slow", "similar states"
PARTS = (FEATURES, PATCHING, PROBES, STEPS, GRADED, THOUGHT, SIMILAR)
"""What there is beside the operators, and can be asked for as they can."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A family, and the task that it was made of; plain text has none."""

    family: Family
    task: Task | None

    whole: Task | None = None
    """The same task with all its items, for what needs many: partners to patch with, and probes."""

    @property
    def name(self) -> str:
        return self.family.name

    def most(self, model: Model, n: int) -> Family:
        """The family with `n` items, if there are more than it has."""
        if self.whole is None or min(n, len(self.whole)) <= len(self.family.metric):
            return self.family
        return family_of(model, self.whole.take(n))


@dataclass(frozen=True)
class Sizes:
    """How much of each part."""

    patched: int = 60
    """Pairs of texts a family."""

    graded: int = 40
    """Items a family whose answers are written with each block skipped."""

    thought: int = 60
    """Items a family that are answered at once and after thinking."""

    compared: int = 60
    """Items whose states under fast and slow prompts are compared."""

    tokens: int = 96
    """Longest answer after thinking."""

    short: int = 12
    """Longest answer at once."""


SIZES = Sizes()

N = TypeVar("N", Subject, Operator)


def named(names: str, there: Sequence[N], what: str, *, others: Sequence[str] = ()) -> list[N]:
    """Those that are asked for by name, with commas between; names of others may be among them.

    Raises ValueError for a name that none has.
    """
    asked, known = [name.strip() for name in names.split(",")], (*(each.name for each in there), *others)
    if unknown := [name for name in asked if name not in known]:
        raise ValueError(
            f"{what} are {names!r}; {unknown[0]!r} is none of {', '.join(known)}. "
            "Give some of these with commas between, or `default` or `all` alone."
        )
    return [each for each in there if each.name in asked]


def parts_of(which: str, saes: Mapping[int, SAE]) -> tuple[str, ...]:
    """Of the parts, those among names of operators and parts with commas between; `default` is none, and `all` all that
    can be had. Raises ValueError for features by name without SAEs.
    """
    if which == ALL:
        return PARTS if saes else PARTS[1:]
    asked = [name.strip() for name in which.split(",")]
    if FEATURES in asked and not saes:
        raise ValueError("operators have 'features' among them, and there are no SAEs to take them from; give --saes.")
    return tuple(name for name in PARTS if name in asked)


def battery(model: Model, saes: Mapping[int, SAE], texts: Sequence[str], which: str = DEFAULT) -> list[Operator]:
    """Skipping each block, and its gradient; or `all` operators, one with means over some of the texts; or some of all.

    Names of parts may stand among theirs. Raises ValueError as `named` does.
    """
    found: list[Operator] = [SkipBlock(), SkipByGradient()]
    if which == DEFAULT:
        return found
    found += [SkipBlock(0.5), SkipBlock(1.5), MeanOfBlock({}), SkipPart("attention"), SkipPart("MLP")]
    found += [SpliceSAE()] if saes else []
    asked = found if which == ALL else named(which, found, "operators", others=PARTS)
    return [MeanOfBlock.of(model, texts[-MEAN_TEXTS:]) if isinstance(one, MeanOfBlock) else one for one in asked]


def subjects_of(
    model: Model,
    texts: Sequence[str],
    n: int,
    which: str = DEFAULT,
    *,
    task: Task | None = None,
    data: Path | None = None,
    seed: int = 0,
) -> list[Subject]:
    """Word problems (or a task of one's own) and capitals; or `all`, those in a folder of data too; or some of all.

    `n` items of each, and after them plain text, a quarter as many but at least fifty. Raises ValueError as `named`
    does.
    """
    problems, *facts = generated_tasks(max(n, PARTNERS), seed=seed)
    whole = [
        problems if task is None else fitting(model, scored_alike(task)),
        *(facts[:1] if which == DEFAULT else facts),
    ]
    if which != DEFAULT and data is not None:
        whole += published_tasks(model, data, max(n, PARTNERS), seed=seed)
    asked = [Subject(family_of(model, each.take(n)), each.take(n), each) for each in whole]
    if which not in (DEFAULT, ALL):
        asked = named(which, asked, "families" if data is not None else "families without --data, a folder of others,")
    return [*asked, Subject(plain_family(model, texts[: max(FEWEST_PLAIN, n // 4)]), None)]
