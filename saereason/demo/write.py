"""The demo's report: one HTML page, and the table for the terminal."""

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from saereason.effects import accuracy, right
from saereason.plots import plot_accuracy, plot_layers, plot_quality, plot_share_difference
from saereason.report import Code, Figure, Page, SideBySide, Table, Text, write_report
from saereason.stats import Estimate
from saereason.tasks import Outcome

from .arms import failures
from .stage import Stage
from .summary import Results, against

LABELS = {
    "direct": "direct prompt",
    "cot": "CoT prompt",
    "feature": "one feature, once",
    "diffmean": "DiffMean, same norm",
    "forced_prefix": "forced prefix, no edit",
    "random_feature": "matched random features",
    "random_direction": "random directions, same norm",
}
HEADER = ("arm", "accuracy", "against direct", "mean tokens", "unparsable", "truncated", "looping")
N_SHOWN = 6


def write_page(stage: Stage, results: Results, summary: dict[str, Any]) -> None:
    """Write `report.html` into the run."""
    write_report(
        stage.run.folder, Page(title(stage), " ".join(summary["words"][:2]), tuple(_sections(stage, results, summary)))
    )


def title(stage: Stage) -> str:
    return f"A reasoning feature in {stage.model.name}"


def accuracy_rows(results: Results) -> list[tuple[str, str, str, str, str, str, str]]:
    """The table of arms: accuracy with interval (random arms: mean and range over draws), tokens, parse failures."""
    arms, rows = results.arms, []
    for name, table in arms.tables.items():
        change = "" if name == "direct" else str(against(table, arms.tables["direct"]))
        rows.append(_row(LABELS[name], str(accuracy(table)), change, [table]))
    for name, tables in arms.draws.items():
        values = [float(right(table).mean()) for table in tables]
        said = f"{np.mean(values):.3f}, draws {min(values):.2f} to {max(values):.2f}"
        rows.append(_row(f"{LABELS[name]} ({len(tables)} draws)", said, "", tables))
    return rows


def _row(label: str, said: str, change: str, tables: list[Any]) -> tuple[str, str, str, str, str, str, str]:
    tokens = np.mean([table["n_tokens"].mean() for table in tables])
    shares = [failures(table) for table in tables]
    failed = [
        f"{np.mean([s[o.value] for s in shares]):.2f}" for o in (Outcome.UNPARSABLE, Outcome.TRUNCATED, Outcome.LOOPING)
    ]
    return (label, said, change, f"{tokens:.1f}", failed[0], failed[1], failed[2])


def steer_command(stage: Stage, results: Results) -> str:
    """The command that repeats the chosen edit on one problem."""
    settings, choice = stage.settings, results.choice
    adapter = ["--adapter", settings.adapter] if settings.adapter else []
    gguf = ["--gguf", str(settings.gguf)] if settings.gguf else []
    question = results.parts.confirmation.items[0].question
    words = [
        *("saereason", "steer", "--model", settings.model, *gguf, *adapter),
        *("--saes", str(stage.run.folder / "saes"), "--feature", str(choice.feature)),
        *("--add", f"{choice.coefficient:.2f}", "--when", "last-prompt-token", "--"),
        f"{question}\n{settings.direct}",
    ]
    return shlex.join(words)


def _sections(stage: Stage, results: Results, summary: dict[str, Any]) -> Iterator[Any]:
    arms, n = results.arms, len(results.parts.confirmation)
    yield Text("What was found", tuple(summary["words"]))
    yield Table(
        "Accuracy on the confirmation problems",
        HEADER,
        tuple(accuracy_rows(results)),
        f"{n} problems that the search never saw. Wilson intervals for single arms; differences are paired, with "
        "Tango's score interval and the exact McNemar test.",
    )
    dots = [(LABELS[name], accuracy(table), []) for name, table in arms.tables.items()]
    for name, tables in arms.draws.items():
        values = [float(right(table).mean()) for table in tables]
        dots.append((LABELS[name], Estimate(float(np.mean(values)), min(values), max(values)), values))
    interval = "Wilson's 95% interval; for random arms, the range over draws"
    yield Figure("Accuracy by arm", plot_accuracy(dots, n=n, interval=interval))
    yield Table(
        "The edit or its first token?",
        ("edit", "first token", "accuracy"),
        tuple(
            ("on" if on else "off", f"{which} one", str(accuracy(table)) if len(table) else "no items")
            for (on, which), table in sorted(arms.crossed.items())
        ),
        "Each problem's first token is forced to its clean or its steered one. Discovery's most frequent steered "
        f"first token, the forced prefix above, is {arms.prefix_text!r}.",
    )
    yield _search(results)
    yield _saes(stage, results)
    yield Figure("Quality of the SAEs", plot_quality(results.qualities))
    yield Figure(
        "What skipping a layer costs",
        plot_layers(results.curves),
        "Drop in log-probability when the layer's block contributes nothing; simultaneous 95% bands over items.",
    )
    yield Figure(
        "Difference of signed shares",
        plot_share_difference(results.curves[0], results.curves[1], results.finding),
        "Pointwise 95% bootstrap intervals over items of both families.",
    )
    yield _examples(results)
    table = arms.tables["feature"]
    done = f"{table['firings'][0]} firings in {n} prompts, |change|/|residual| {table['relative_size'][0]:.3f}"
    yield Code("Receipt of the steered run", f"{results.choice.intervention}: {done}")
    yield Code("Repeat it", steer_command(stage, results))
    yield Table("Seconds of this run", ("step", "seconds"), tuple(stage.steps.seconds.items()))


def _search(results: Results) -> Table:
    choice = results.choice
    rows = []
    for record in choice.tried.head(8).to_dict("records"):
        rows.append((record["feature"], f"{record['coefficient']:.1f}", f"{record['gain']:+.3f}"))
    return Table(
        "Candidates on the discovery problems",
        ("feature", "coefficient", "log-probability gained, nats a token"),
        tuple(rows),
        f"{choice.n_features} features searched at {len(results.qualities)} layers on {len(results.parts.discovery)} "
        f"problems; {choice.n_tried} candidates (feature and coefficient) tried, the best 8 shown. Scored: the model's "
        "own CoT answer after the direct prompt.",
    )


def _saes(stage: Stage, results: Results) -> Table:
    rows = tuple(
        (q.layer, f"{q.explained_variance:.3f}", f"{q.l0:.1f}", f"{q.dead:.3f}", f"{q.loss_recovered:.3f}")
        for q in results.qualities
    )
    note = f"On {results.qualities[0].n_tokens} tokens the SAEs were not trained on; weights {stage.model.hash}."
    return Table("SAEs", ("layer", "explained variance", "L0", "dead share", "loss recovered"), rows, note)


def _examples(results: Results) -> SideBySide:
    direct, feature = results.arms.tables["direct"], results.arms.tables["feature"]
    items = tuple(
        (item.question, left, steered, f"gold answer {item.answer}; {a} without, {b} with the edit")
        for item, left, steered, a, b in zip(
            results.parts.confirmation.items[:N_SHOWN],
            direct["text"],
            feature["text"],
            direct["outcome"],
            feature["outcome"],
            strict=False,
        )
    )
    return SideBySide("The direct prompt, clean and steered", ("clean", "steered"), items)
