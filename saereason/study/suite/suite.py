"""The suite: every mechanism on a model and on its sibling, in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from saereason.executors import side_by_side
from saereason.mechanisms import Comparison, answer_ahead, compare
from saereason.preflight import Fit, preflight
from saereason.runs import write_json, write_table

from .arms import arms_of
from .chosen import Chosen
from .ground import Ground
from .parts import Parts, form_answers, measure_parts, sample


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found on one model."""

    ground: Ground
    chosen: Chosen
    comparison: Comparison
    parts: Parts

    fits: Sequence[Fit]
    """How the SAEs serve this model."""

    left_out: Mapping[str, str]
    """Mechanisms that could not be had here, and why."""


def run_suite(grounds: Sequence[Ground], again: Sequence[Ground] = ()) -> list[Compared]:
    """Compare all mechanisms on every model; what they say, as `summary.json`, tables and `report.html` in the run.

    The grounds are worked on side by side, so no two may share a model or SAEs. What the run holds is not done again.
    `again` are some of them once more, with a model and SAEs of their own: whoever is done goes on there with what the
    other comes to last.
    """
    from saereason.report import write_report

    from .page import page, summary

    left = {ground.name: ground for ground in again}

    def whole(ground: Ground) -> Compared:
        found = _compared(ground)
        left.pop(ground.name, None)
        return found

    def help_on() -> None:
        ground = left.pop(next(iter(left), ""), None)
        if ground is not None:
            _ahead(ground)

    found = side_by_side([partial(whole, ground) for ground in grounds], [help_on] * len(again))
    run = grounds[0].run
    for each in found:
        write_table(run.folder / f"{each.ground.name}.parquet", each.comparison.summary())
    write_json(run.folder / "summary.json", summary(found))
    write_report(run.folder, page(found))
    return found


def _compared(ground: Ground) -> Compared:
    chosen = Chosen(ground)
    with ground.bars.step(f"{ground.name}: choose and train") as show:
        arms = arms_of(chosen, show)
    with ground.bars.step(f"{ground.name}: compare") as show:
        comparison = compare(
            ground.model,
            ground.saes,
            arms.every,
            ground.tasks,
            run=ground.run,
            fewer=arms.fewer,
            max_new_tokens=ground.sizes.most,
            n_orders=ground.sizes.n_orders,
            progress=show,
        )
    with ground.bars.step(f"{ground.name}: do the SAEs fit"):
        fits = preflight(ground.model, ground.saes, strict=False)
    return Compared(ground, chosen, comparison, measure_parts(chosen, comparison), fits, arms.left_out)


def _ahead(ground: Ground) -> None:
    """What `_compared` comes to last, the last first, until it comes to what is done."""
    with ground.bars.step(f"{ground.name}, from the end: sample") as show:
        sample(ground, show)
    with ground.bars.step(f"{ground.name}, from the end: other forms") as show:
        form_answers(ground, show)
    with ground.bars.step(f"{ground.name}, from the end: choose and train") as show:
        arms = arms_of(Chosen(ground), show)
    with ground.bars.step(f"{ground.name}, from the end: compare") as show:
        answer_ahead(
            ground.model,
            ground.saes,
            arms.every,
            ground.tasks,
            run=ground.run,
            fewer=arms.fewer,
            max_new_tokens=ground.sizes.most,
            progress=show,
        )
