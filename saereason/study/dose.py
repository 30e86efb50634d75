"""A planned sweep, done or only told: its work units, an estimate, its tables and its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from saereason.effects import Sweep, Trial, sweep, sweep_units
from saereason.effects.sweep import CLEAN
from saereason.generate import check_room, generate
from saereason.model import Model
from saereason.plots import plot_dose
from saereason.progress import Steps
from saereason.report import Code, Figure, Page, Table, write_report
from saereason.runs import Run, write_table
from saereason.saes import SAE
from saereason.stats import Estimate
from saereason.steering import Intervention

from .plan import Plan

SHORT, LONG, TIMED = 4, 12, 16
"""New tokens of the two timed generations, and their prompts."""

OPENINGS = 10
SHORT_HEADER = ("arm", "accuracy", "change", "failed", "tokens", "KL")
HEADER = ("arm", "accuracy", "change", "unparsable", "truncated", "looping", "tokens", "perplexity", "KL", "size")


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan with its model and SAEs, ready to run."""

    plan: Plan
    model: Model
    saes: Mapping[int, SAE]
    trial: Trial
    interventions: Sequence[Intervention]

    @classmethod
    def of(cls, plan: Plan, model: Model, saes: Mapping[int, SAE]) -> "Planned":
        """Raises ValueError for all that would end the run later."""
        trial = plan.trial(model)
        check_room(model, [model.encode(prompt) for prompt in trial.prompts], trial.max_new_tokens)
        return cls(plan, model, saes, trial, plan.interventions(model, saes, trial))

    def units(self, run: Run | None) -> Any:
        """A table of the work units: `arm`, `work`, `unit`, `done`."""
        plain = self.plan.texts(self.model)
        return sweep_units(self.model, self.saes, self.trial, self.interventions, plain=plain, run=run)

    def seconds(self, units: Any) -> float:
        """About how long what is not done would take if no answer ended early, from two short clean generations."""
        prompts = self.trial.prompts[:TIMED]
        short, long = (_timed(self.model, prompts, n) for n in (SHORT, LONG))
        step = max(long - short, 0.0) / (LONG - SHORT)
        read = max(short - SHORT * step, 0.0)
        n_tokens = sum(len(self.model.encode(prompt)) for prompt in prompts)
        plain = sum(len(self.model.encode(text)) for text in self.plan.texts(self.model))
        cost = {
            "answers": (read + self.trial.max_new_tokens * step) * len(self.trial) / len(prompts),
            "damage": read * (plain / n_tokens + 2),
        }
        return float(sum(cost[work] for work in units["work"][~units["done"]]))

    def run(self, run: Run, bars: Steps) -> Sweep:
        """Sweep, and write `summary.parquet` and `report.html` into the run."""
        with bars.step("sweep") as show:
            found = sweep(
                self.model,
                self.saes,
                self.trial,
                self.interventions,
                plain=self.plan.texts(self.model),
                run=run,
                rows_at_once=self.plan.rows_at_once,
                may_be_silent=self.plan.may_be_silent,
                progress=show,
            )
        write_table(run.folder / "summary.parquet", found.summary())
        write_report(run.folder, self.page(found))
        return found

    def page(self, found: Sweep) -> Page:
        """The dose plot, and what is behind it."""
        rows = summary_rows(found)
        best = max(found.summary().iloc[1:].itertuples(), key=lambda row: abs(row.change))
        lead = f"{len(rows) - 1} arms and the clean model on {len(self.trial)} items of {self.plan.task}."
        sizes = self._sizes()
        figure = plot_dose(found, sizes=sizes, unit=self.plan.unit) if sizes else plot_dose(found)
        return Page(
            f"Dose and response in {self.model.name}",
            lead,
            (
                Figure("What each dose does", figure),
                Table("Every arm", HEADER, tuple(rows), "Intervals: Wilson, and Tango's for changes, paired by item."),
                Table(
                    "First tokens",
                    ("clean", "answers", f"under {best.arm}", "answers "),
                    tuple(opening_rows(self.model, found, best.arm)),
                    f"The {OPENINGS} most frequent, clean and under the arm that changes accuracy the most.",
                ),
                Code("Receipts", receipts(found)),
            ),
        )

    def _sizes(self) -> dict[str, float]:
        """The size of each arm in the plan's unit; none where that is the operator's own."""
        if self.plan.unit == "own":
            return {}
        names = [f"{each} {each.when}" for each in self.interventions]
        sizes = self.plan.sizes * (len(names) // len(self.plan.sizes))
        return dict(zip(names, sizes, strict=True))


def summary_rows(found: Sweep) -> list[tuple[Any, ...]]:
    """A row for each arm, as the page and the terminal show it."""
    rows = []
    for row in found.summary().itertuples():
        accuracy = Estimate(row.accuracy, row.accuracy_low, row.accuracy_high)
        change = Estimate(row.change, row.change_low, row.change_high)
        shares = (f"{share:.2f}" for share in (row.unparsable, row.truncated, row.looping))
        damage = (f"{value:.4g}" if value == value else "" for value in (row.perplexity, row.kl))
        size = "" if row.arm == CLEAN else f"{row.relative_size:.3f}"
        told = "" if row.arm == CLEAN else str(change)
        rows.append((row.arm, str(accuracy), told, *shares, f"{row.tokens:.1f}", *damage, size))
    return rows


def short_rows(found: Sweep) -> list[tuple[Any, ...]]:
    """A row for each arm that fits on a terminal; what is truncated or loops has failed."""
    return [
        (arm, accuracy, change, f"{float(truncated) + float(looping):.2f}", tokens, kl)
        for arm, accuracy, change, _, truncated, looping, tokens, _, kl, _ in summary_rows(found)
    ]


def opening_rows(model: Model, found: Sweep, arm: str) -> list[tuple[Any, ...]]:
    """The most frequent first tokens, clean beside one arm."""
    sides = [found.first_tokens(name, OPENINGS) for name in (CLEAN, arm)]
    length = max(map(len, sides))
    told = [[(repr(model.decode([t])) if t >= 0 else "(empty)", n) for t, n in side] for side in sides]
    padded = [side + [("", None)] * (length - len(side)) for side in told]
    return [(*clean, *steered) for clean, steered in zip(*padded, strict=True)]


def receipts(found: Sweep) -> str:
    """A line for each arm."""
    rows = found.summary().iloc[1:].itertuples()
    return "\n".join(f"{r.arm}: {r.firings} firings, |change|/|residual| {r.relative_size:.3f}" for r in rows)


def _timed(model: Model, prompts: Sequence[Any], n: int) -> float:
    start = perf_counter()
    generate(model, prompts, max_new_tokens=n)
    return perf_counter() - start
