"""A study: every score proposes features for a behaviour, and the ladder is climbed with each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saereason.controls import Behaviour, Rivals, Verdict, challenge
from saereason.controls.ladder import NAMES, check_draws, standing
from saereason.explorer import Exploration, write_page
from saereason.model import Model
from saereason.plots import plot_funnel
from saereason.progress import Steps
from saereason.report import Figure, Link, Page, Table, Text, write_report
from saereason.runs import Run
from saereason.saes import SAE

from .propose import Proposals, propose

EXPLORED, N_EXPLORED = "explorer.html", 50
"""The page of the best features, and how many there are on it beside those that were challenged."""


@dataclass(frozen=True, eq=False)
class Study:
    proposals: Proposals
    verdicts: tuple[Verdict, ...]


def run_study(
    model: Model,
    saes: Mapping[int, SAE],
    behaviour: Behaviour,
    run: Run,
    bars: Steps,
    *,
    n_per_score: int = 3,
    n_draws: int = 10,
    rivals: Rivals = Rivals(),
    seed: int = 0,
) -> Study:
    """Propose, challenge, and write `proposals.parquet`, `verdicts.parquet`, `report.html` and `explorer.html`.

    What the run already holds of verdicts is not done again.
    """
    check_draws(n_draws)
    with bars.step("let every score propose features") as show:
        proposals = propose(model, saes, behaviour, n=n_per_score, progress=show)
        proposals.table.save(run.folder / "proposals.parquet")
    if not proposals.features:
        raise ValueError("no score proposes a feature, since none is above 0; give other examples or SAEs.")
    with bars.step("climb the ladder") as show:
        verdicts = challenge(
            model,
            saes,
            proposals.features,
            behaviour,
            rivals=rivals,
            n_draws=n_draws,
            run=run,
            seed=seed,
            progress=show,
        )
    study = Study(proposals, tuple(verdicts))
    with bars.step("a page of every feature") as show:
        explored = Exploration.of(model, saes, proposals.table, verdicts=verdicts, progress=show)
        write_page(explored, run.folder / EXPLORED, N_EXPLORED, progress=show)
    write_report(run.folder, _page(model, behaviour, study))
    return study


def _page(model: Model, behaviour: Behaviour, study: Study) -> Page:
    verdicts, proposals = study.verdicts, study.proposals
    n = len(verdicts)
    standing = max((verdict.height for verdict in verdicts), default=0)
    said = f"{len(proposals.by_score)} scores proposed {n} features; the highest rung that any stands on is {standing}."
    left_out = tuple(f"{name}: {why}" for name, why in proposals.left_out.items())
    return Page(
        f"{behaviour.name}: who stands on the ladder? ({model.name})",
        said,
        (
            Figure("The funnel", plot_funnel(verdicts, proposals.by_score)),
            Table("Scores", ("score", "proposed", *map(str, NAMES)), tuple(_by_score(study)), "Features on each rung."),
            Table("Features", ("feature", "proposed by", "height", "passes"), tuple(_rows(study))),
            Text("Verdicts", tuple(str(verdict) for verdict in verdicts)),
            Link("What each feature reads and writes", EXPLORED, "The explorer: a card of each, with its rungs."),
            *([Text("Scores left out", left_out)] if left_out else []),
        ),
    )


def _by_score(study: Study) -> Sequence[tuple[str | int, ...]]:
    """How many of each score's features stand on each rung, and of all that any score proposed."""
    found = {verdict.feature: verdict for verdict in study.verdicts}
    scores = {**study.proposals.by_score, "any of them": tuple(found)}
    return [(name, len(row), *standing([found[f] for f in row])) for name, row in scores.items()]


def _rows(study: Study) -> Sequence[tuple[str, str, int, str]]:
    """One a feature, the highest first."""
    by = study.proposals.by_score.items()
    return [
        (
            str(verdict.feature),
            ", ".join(name for name, features in by if verdict.feature in features),
            verdict.height,
            ", ".join(str(rung.number) for rung in verdict.rungs if rung.passed) or "none",
        )
        for verdict in sorted(study.verdicts, key=lambda verdict: -verdict.height)
    ]
