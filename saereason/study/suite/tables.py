"""The tables of the page, each of one model: what is said of every mechanism."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from saereason.effects import right
from saereason.layers import fast_slow
from saereason.mechanisms import Overlap, chain_of_draft
from saereason.mechanisms.comparison import DIRECT
from saereason.mechanisms.forms import STEP
from saereason.mechanisms.steering import COMPRESSED
from saereason.report import Table
from saereason.search import written_tokens
from saereason.stats import Estimate, benjamini_yekutieli, mean_interval, paired_difference, wilson

from .ground import KNOWN, PROBLEMS, STORIES
from .parts import COT, following_row
from .suite import Compared

SHOWN_TOKENS, SHOWN_FEATURES = 3, 4
SHORTENS = (chain_of_draft().name, COMPRESSED)


def _table(each: Compared, title: str, header: Sequence[str], rows: Iterable[tuple[Any, ...]], note: str) -> Table:
    return Table(f"{each.ground.name}: {title}", tuple(header), tuple(rows), note)


def with_cot(each: Compared) -> dict[str, tuple[Overlap, float]]:
    """Every mechanism's overlap with the CoT prompt, and its p adjusted for how many there are (BY)."""
    pairs = {
        (b if a == COT.name else a): alike for (a, b), alike in each.comparison.overlaps.items() if COT.name in (a, b)
    }
    adjusted = benjamini_yekutieli(np.array([alike.p for alike in pairs.values()]))
    return {name: (alike, float(p)) for (name, alike), p in zip(pairs.items(), adjusted, strict=True)}


ANSWERS = ("mechanism", "problems", "change", "other stories", "longer chains", "other operations", "capitals")
ANSWERS_NOTE = (
    "Share of right answers with Wilson's interval; the change against the direct prompt is paired by item (Tango). "
    "Whatever is not right counts against it. Controls, and what takes several calls, are asked problems and capitals "
    "alone."
)


def answer_table(each: Compared, rows: Any) -> Table:
    return _table(each, "what each makes of the answers", ANSWERS, _answer_rows(each, rows), ANSWERS_NOTE)


def _answer_rows(each: Compared, rows: Any) -> Iterator[tuple[Any, ...]]:
    for mechanism in each.comparison.mechanisms:
        asked = [task for task in each.comparison.tasks if (mechanism.name, task) in rows.index]
        told = {task: rows.loc[(mechanism.name, task)] for task in asked}
        shares = {t: Estimate(r["accuracy"], r["accuracy_low"], r["accuracy_high"]) for t, r in told.items()}
        first = told[PROBLEMS]
        change = Estimate(first["change"], first["change_low"], first["change_high"])
        beyond = [shares.get(task) for task in (*STORIES, KNOWN) if task != PROBLEMS]
        yield (mechanism.name, shares[PROBLEMS], None if mechanism == DIRECT else change, *beyond)


COST = ("mechanism", "tokens", "in all", "unparsable", "truncated", "looping", "checked", "right if it passes")


def cost_table(each: Compared, rows: Any) -> Table:
    return _table(each, "what it costs", COST, _cost_rows(each, rows), "Mean tokens of the answer, and in all.")


def _cost_rows(each: Compared, rows: Any) -> Iterator[tuple[Any, ...]]:
    for mechanism in each.comparison.mechanisms:
        row = rows.loc[(mechanism.name, PROBLEMS)]
        shares = (row[name] for name in ("tokens", "spent", "unparsable", "truncated", "looping"))
        checked = [None if np.isnan(row[name]) else float(row[name]) for name in ("consistent", "right_if_consistent")]
        yield (mechanism.name, *map(float, shares), *checked)


SHORTER = ("mechanism", "tokens fewer than the CoT prompt", "right answers, against the CoT prompt", "finished in both")
SHORTER_NOTE = (
    "Paired by item (tokens: bootstrap; answers: Tango). An answer that is cut off would be longer: where few are "
    "finished in both, nothing is said of length; and where the CoT prompt is never right, nothing of accuracy."
)


def shorter_table(each: Compared) -> Table:
    return _table(each, "shorter at equal accuracy?", SHORTER, _shorter_rows(each), SHORTER_NOTE)


def _shorter_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    """Of what is to shorten thoughts, where it could be had."""
    found = each.comparison
    long, ended = found.of(COT.name), found.written[COT.name].finished
    for name in (name for name in SHORTENS if name in found.written):
        short = found.of(name)
        fewer = mean_interval(long["n_tokens"].to_numpy(float) - short["n_tokens"].to_numpy(float))
        both = sum(a and b for a, b in zip(ended, found.written[name].finished, strict=True))
        yield (name, fewer, paired_difference(right(short), right(long)), f"{both} of {len(long)}")


GAINS = ("mechanism", "own thought", "answer masked", "another item's thought")
GAINS_NOTE = (
    "Rise in the log-probability of the right answer after the text, nats a token, on the model as it is. A text that "
    "states the answer gains by being copied: with the answer masked, and with another item's text, it cannot."
)


def gain_table(each: Compared, rows: Any) -> Table:
    return _table(each, "what a thought is worth", GAINS, _gain_rows(each, rows), GAINS_NOTE)


def _gain_rows(each: Compared, rows: Any) -> Iterator[tuple[Any, ...]]:
    for mechanism in each.comparison.mechanisms:
        row = rows.loc[(mechanism.name, PROBLEMS)]
        names = [f"gain_{which}" for which in ("own", "masked", "other")]
        yield (
            mechanism.name,
            *(
                Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]) if np.isfinite(row[name]) else None
                for name in names
            ),
        )


OVERLAPS = (
    "mechanism",
    "features",
    "by chance",
    "p",
    "residual stream",
    "by chance",
    "rank",
    "chance",
    "CKA",
    "chance",
)
OVERLAP_P = "p by Benjamini and Yekutieli, over these rows; chance is the 95th percentile."


def overlap_table(each: Compared) -> Table:
    return _table(each, "overlap with the CoT prompt", OVERLAPS, _overlap_rows(each), OVERLAP_P)


def _overlap_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    found = with_cot(each)
    for name, (alike, p) in sorted(found.items(), key=lambda pair: -pair[1][0].cosine):
        resid = (alike.resid_cosine, alike.resid_cosine_by_chance)
        ranks = (alike.top, alike.top_by_chance, alike.cka, alike.cka_by_chance)
        yield (name, alike.cosine, alike.cosine_by_chance, p, *resid, *ranks)


SHARED = ("mechanism", "shared with the CoT prompt, and what they write", "its own, and what they write")
SHARED_NOTE = "Features that rise the most surely, with the tokens that their decoder rows raise most (logit lens)."


def shared_table(each: Compared) -> Table:
    return _table(each, "features shared with the CoT prompt", SHARED, _shared_rows(each), SHARED_NOTE)


def _shared_rows(each: Compared) -> Iterator[tuple[str, ...]]:
    ground = each.ground

    def told(features: Sequence[Any]) -> str:
        said = []
        for feature in features[:SHOWN_FEATURES]:
            tokens = written_tokens(ground.model, ground.saes, feature, SHOWN_TOKENS).raised
            said.append(f"{feature} ({' '.join(repr(token) for token, _ in tokens)})")
        return ", ".join(said) or "none"

    for name, (shared, own) in each.parts.shared.items():
        yield (name, told(shared), told(own))


UNDONE = ("mechanism", "as it is", "without shared", "without matched", "shared, beyond matched", "features")
UNDONE_NOTE = (
    "The features that the mechanism and the CoT prompt both raise the most surely, held at zero, against sets of as "
    "many features that fire about as often. Above 0: taking the shared ones out costs more right answers. They were "
    "chosen on the same items' activations, not on their answers."
)


def undone_table(each: Compared) -> Table:
    return _table(each, "without what they share", UNDONE, _undone_rows(each), UNDONE_NOTE)


def _undone_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for one in each.parts.undone:
        yield (one.mechanism, one.whole, one.without, one.matched, one.beyond, ", ".join(map(str, one.features)))


def opening_table(each: Compared) -> Table:
    return _table(each, "first tokens", ("mechanism", "openings"), _opening_rows(each), "With their shares.")


def _opening_rows(each: Compared) -> Iterator[tuple[str, str]]:
    for mechanism in each.comparison.mechanisms:
        tokens = [int(token) for token in each.comparison.of(mechanism.name)["first_token"]]
        best = Counter(tokens).most_common(SHOWN_TOKENS)
        said = [
            f"{each.ground.model.decode([token])!r} {count / len(tokens):.2f}" if token >= 0 else f"nothing {count}"
            for token, count in best
        ]
        yield (mechanism.name, ", ".join(said))


FORMS = ("worked examples", "accuracy", "against none", "tokens")
FORMS_NOTE = (
    "The CoT prompt after worked examples. Invalid: other results; irrelevant: another problem's working; shuffled: "
    "steps in another order. Where these help as much as valid ones, it is the form that helps."
)


def form_table(each: Compared) -> Table:
    return _table(each, "form or inference", FORMS, _form_rows(each), FORMS_NOTE)


def _form_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for form, row in each.parts.forms.items():
        share = Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
        yield (form, share, Estimate(row["change"], row["change_low"], row["change_high"]), row["tokens"])


FOLLOWED = ("written by", "chains changed", "answers that follow", "keep", "other", "none")
FOLLOWED_NOTE = (
    "The first result in the model's own chain is another number, and it goes on from there. An answer that follows "
    "was computed from the chain; one that keeps what it was, was not."
)


def followed_table(each: Compared) -> Table:
    return _table(each, "a result changed in the chain", FOLLOWED, _followed_rows(each), FOLLOWED_NOTE)


def _followed_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for name, counts in each.parts.followed.items():
        n, share = following_row(counts)
        yield (name, n, share, *(counts[one] for one in counts if one.value != "follows"))


def length_table(each: Compared) -> Table:
    """Right answers by how many steps a problem takes, over all tasks with known steps."""
    lengths = {item.id: len(STEP.findall(item.solution)) for name in STORIES for item in each.ground.tasks[name].items}
    every = sorted(set(lengths.values()))
    rows = []
    for mechanism in each.comparison.mechanisms:
        answers = each.comparison.answers
        table = answers[(answers["mechanism"] == mechanism.name) & answers["task"].isin(list(STORIES))]
        of, good = np.array([lengths[item] for item in table["item"]]), right(table)
        counts = [(int(good[of == length].sum()), int((of == length).sum())) for length in every]
        rows.append((mechanism.name, *(wilson(*count) if count[1] else None for count in counts)))
    header = ("mechanism", *(f"{length} steps" for length in every))
    note = "Training, where there was any, had two and three steps."
    return _table(each, "by length of the chain", header, rows, note)


FAST = ("mechanism", "δ", "δ_c", "δ_o", "r_c", "r_o")
FAST_NOTE = (
    "Against the direct prompt: δ = δ_c − δ_o, what is corrected less what is spoiled; r_c and r_o are the same among "
    "those wrong, and right, at once."
)


def fast_table(each: Compared) -> Table:
    return _table(each, "fast and slow", FAST, _fast_rows(each), FAST_NOTE)


def _fast_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    clean = list(each.comparison.of(DIRECT.name)["outcome"])
    for mechanism in each.comparison.mechanisms:
        if mechanism != DIRECT:
            f = fast_slow(mechanism.name, clean, list(each.comparison.of(mechanism.name)["outcome"]))
            yield (mechanism.name, f.delta, f.corrected, f.overthought, f.corrects, f.overthinks)


FITS = ("layer", "explained variance here", "on its card", "L0", "fits")
FITS_NOTE = "On paragraphs of English. Where an SAE does not fit, what its features do here means little."


def fit_table(each: Compared) -> Table:
    rows = ((f.layer, f.explained_variance, f.card_explained_variance, f.l0, f.fits) for f in each.fits)
    return _table(each, "do the SAEs serve this model?", FITS, rows, FITS_NOTE)
