"""Climb the ladder of claims with every candidate."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from saereason.controls.cues.trial import encoded
from saereason.features import Feature
from saereason.model import Model
from saereason.runs import Run, write_table
from saereason.saes import SAE, check_in_units_of_resid, check_rows, check_saes, decoder_row, hashes, sae_at

from .behaviour import TRIALS, Behaviour
from .bench import Bench, Candidate, Rivals
from .chance import beats_chance
from .changes import changes_the_task, is_necessary
from .cheap import beats_the_cheap
from .correlates import correlates, replicates
from .counterexamples import Counterexamples, Templates
from .cues import survives_cues
from .dose import sized
from .recurs import recurs
from .rung import Rung
from .verdict import Verdict, verdict_rows

Climb = Callable[[Bench, Candidate], Rung]
LADDER: tuple[Climb, ...] = (
    correlates,
    replicates,
    survives_cues,
    beats_chance,
    beats_the_cheap,
    changes_the_task,
    is_necessary,
    recurs,
)
"""Each rung's rule is its docstring."""

FEWEST_DRAWS = 10
"""Random controls of each kind."""


def challenge(
    model: Model,
    saes: Mapping[int, SAE],
    features: Sequence[Feature],
    behaviour: Behaviour,
    *,
    rivals: Rivals = Rivals(),
    counterexamples: Counterexamples = Templates(),
    n_draws: int = 10,
    multiples: Sequence[float] = (0.5, 1.0, 2.0),
    run: Run | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """Try to prove each feature wrong, rung by rung; every rung is climbed whatever the others say.

    Features are steered with at the multiple of DiffMean's norm at their layer that does best on discovery. `n_draws`
    random controls of each kind, at least ten. With `run`, what is done is kept there and not done again, the splits'
    ids stand in its manifest and the rungs in `verdicts.parquet`. Raises ValueError for features that are not there,
    given twice or without a decoder row, for rows that are not finite, for fewer draws, for multiples that are not
    positive, and for texts that `try_cues` would refuse.
    """
    _check(model, saes, features, behaviour, rivals)
    if not multiples or min(multiples) <= 0:
        raise ValueError(f"multiples are {list(multiples)}; give at least one, all positive.")
    check_draws(n_draws)
    with _folder(run) as folder:
        bench = Bench(
            model,
            saes,
            behaviour,
            tuple(features),
            rivals,
            counterexamples,
            n_draws,
            tuple(multiples),
            run,
            seed,
            folder,
        )
        candidates = [sized(bench, feature) for feature in features]
        verdicts = []
        for candidate in candidates:
            rungs = []
            for climb in LADDER:
                rungs.append(_climbed(bench, climb, candidate))
                progress(len(verdicts) * len(LADDER) + len(rungs), len(features) * len(LADDER))
            verdicts.append(_verdict(bench, candidate, rungs))
        if run is not None:
            _keep(run, bench, verdicts)
    return verdicts


def _check(
    model: Model, saes: Mapping[int, SAE], features: Sequence[Feature], behaviour: Behaviour, rivals: Rivals
) -> None:
    """Raises ValueError for what a rung could not use, before hours of work on the rungs below it."""
    check_in_units_of_resid(saes)
    of_the_model = (saes, *rivals.others, rivals.frozen or saes)
    for each in of_the_model:
        check_saes(model, each)
    for each in (*of_the_model, *(rivals.untrained or ())[1:]):
        check_rows(each)
    for feature in features:
        if not decoder_row(sae_at(saes, feature), feature.index).any():
            raise ValueError(f"the decoder row of {feature} is 0, so there is nothing to steer with; leave it out.")
    if not features or len(set(features)) < len(features):
        raise ValueError(f"there are {len(features)} features, {len(set(features))} different; give each once.")
    if behaviour.showing:
        encoded(model, behaviour.showing, behaviour.plain)


def check_draws(n: int) -> None:
    """Raises ValueError for fewer random controls than say anything."""
    if n < FEWEST_DRAWS:
        raise ValueError(f"{n} random draws of each kind say little; give at least {FEWEST_DRAWS}.")


def _climbed(bench: Bench, climb: Climb, candidate: Candidate) -> Rung:
    """The rung, from the run where it is there."""

    def compute() -> list[dict[str, str]]:
        return [{"rung": climb(bench, candidate).json}]

    return Rung.of(bench.rows(climb.__name__, compute, candidate=candidate, of=bench.identity)["rung"][0])


def _verdict(bench: Bench, candidate: Candidate, rungs: Sequence[Rung]) -> Verdict:
    table = bench.discovery.table
    return Verdict(
        feature=candidate.feature,
        behaviour=bench.behaviour.name,
        rungs=tuple(rungs),
        coefficient=candidate.coefficient,
        n_features=len(table),
        n_candidates=len(bench.features),
        n_sizes=candidate.n_sizes,
    )


def _keep(run: Run, bench: Bench, verdicts: Sequence[Verdict]) -> None:
    import pandas as pd

    bench.discovery.table.save(run.folder / "features.parquet")
    write_table(run.folder / "verdicts.parquet", pd.DataFrame(verdict_rows(verdicts)))
    behaviour = bench.behaviour
    run.write_manifest(
        command=["challenge"],
        model=bench.model.name,
        model_hash=bench.model.hash,
        saes=dict(bench.hashes),
        rivals={
            "others": [dict(hashes(saes)) for saes in bench.rivals.others],
            "frozen": dict(hashes(bench.rivals.frozen or {})),
            "untrained": dict(hashes(bench.rivals.untrained[1])) if bench.rivals.untrained else {},
        },
        behaviour=behaviour.name,
        discovery=behaviour.discovery.ids,
        confirmation=behaviour.confirmation.ids,
        trials={name: trial.ids for name in TRIALS if (trial := getattr(behaviour, name)) is not None},
        n_features=len(bench.discovery.table),
        candidates=[str(feature) for feature in bench.features],
        multiples=bench.multiples,
        n_draws=bench.n_draws,
        counterexamples=bench.counterexamples.name,
        seed=bench.seed,
    )


@contextmanager
def _folder(run: Run | None) -> Iterator[Path]:
    if run is not None:
        yield run.folder / "blocks"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
