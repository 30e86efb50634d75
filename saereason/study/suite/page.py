"""The suite as one page and as figures to read by program."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from saereason.effects import right
from saereason.layers import fast_slow
from saereason.mechanisms import Overlap, chain_of_draft
from saereason.mechanisms.comparison import DIRECT
from saereason.mechanisms.forms import STEP
from saereason.mechanisms.steering import COMPRESSED
from saereason.plots import plot_overlaps, plot_pass_at_k, plot_through_steps, plot_weights
from saereason.report import Figure, Page, Section, Table, Text
from saereason.search import written_tokens
from saereason.stats import Estimate, benjamini_yekutieli, mean_interval, paired_difference, wilson

from .ground import KNOWN, PROBLEMS, STORIES
from .parts import COT, WINDOWS, following_row
from .suite import Compared

ALPHA = 0.05
RANDOM = "random "
"""How the names of controls begin."""

SHOWN_TOKENS, SHOWN_FEATURES = 3, 4
ANSWERS = ("mechanism", "problems", "change", "other stories", "longer chains", "other operations", "capitals")
COST = ("mechanism", "tokens", "in all", "unparsable", "truncated", "looping", "checked", "right if it passes")
GAINS = ("mechanism", "own thought", "answer masked", "another item's thought")
FAST = ("mechanism", "δ", "δ_c", "δ_o", "r_c", "r_o")
UNDONE = ("mechanism", "as it is", "without shared", "without matched", "shared, beyond matched", "features")
ANSWERS_NOTE = (
    "Share of right answers with Wilson's interval; the change against the direct prompt is paired by item (Tango). "
    "Whatever is not right counts against it. Controls, and what takes several calls, are asked problems and capitals "
    "alone."
)
SHORTENS = (chain_of_draft().name, COMPRESSED)
SHORTER = ("mechanism", "tokens fewer than the CoT prompt", "right answers, against the CoT prompt", "finished in both")
SHORTER_NOTE = (
    "Paired by item (tokens: bootstrap; answers: Tango). An answer that is cut off would be longer: where few are "
    "finished in both, nothing is said of length; and where the CoT prompt is never right, nothing of accuracy."
)
GAINS_NOTE = (
    "Rise in the log-probability of the right answer after the text, nats a token, on the model as it is. A text that "
    "states the answer gains by being copied: with the answer masked, and with another item's text, it cannot."
)
OVERLAP_NOTE = (
    "Cosine of the changes of features, each measured on another half of the items; chance: features of about the same "
    "activation change places. Random features and directions show what any edit shares."
)
UNDONE_NOTE = (
    "The features that the mechanism and the CoT prompt both raise the most surely, held at zero, against sets of as "
    "many features that fire about as often. Above 0: taking the shared ones out costs more right answers. They were "
    "chosen on the same items' activations, not on their answers."
)


def summary(found: Sequence[Compared]) -> dict[str, Any]:
    """`mechanisms` and `overlap` by "model: mechanism"."""
    mechanisms, overlap = {}, {}
    for each in found:
        table = each.comparison.summary().set_index(["mechanism", "task"])
        for mechanism in each.comparison.mechanisms:
            row = table.loc[(mechanism.name, PROBLEMS)]
            mechanisms[f"{each.ground.name}: {mechanism.name}"] = {
                "accuracy": float(row["accuracy"]),
                "low": float(row["accuracy_low"]),
                "high": float(row["accuracy_high"]),
                "tokens": float(row["tokens"]),
                "unparsed": float(row["unparsable"] + row["truncated"] + row["looping"]),
                "information_gain": _number(row["gain_own"]),
                "information_gain_masked": _number(row["gain_masked"]),
                "knowledge": float(table.loc[(mechanism.name, KNOWN)]["accuracy"]),
            }
        for names, alike in each.comparison.overlaps.items():
            overlap[f"{each.ground.name}: {names[0]} | {names[1]}"] = {k: _number(v) for k, v in vars(alike).items()}
    left_out = {f"{each.ground.name}: {name}": why for each in found for name, why in each.left_out.items()}
    return {"mechanisms": mechanisms, "overlap": overlap, "left_out": left_out, "verdict": verdict(found)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def verdict(found: Sequence[Compared]) -> str:
    """The answer to the question, in a sentence for each model, and what its answers were too short for."""
    return " ".join(sentence for each in found for sentence in (_answer(each), _cut_off(each)) if sentence)


def _cut_off(each: Compared) -> str:
    """Of how many mechanisms most answers were not finished, if of any: a limit is no inability."""
    table = each.comparison.summary().set_index(["mechanism", "task"])
    names = [mechanism.name for mechanism in each.comparison.mechanisms]
    cut = sum(table.loc[(name, PROBLEMS)]["truncated"] > 0.5 for name in names)
    if not cut:
        return ""
    return (
        f"({each.ground.name}: under {cut} of {len(names)} mechanisms over half of the answers were cut off at "
        f"{each.ground.sizes.most} tokens and count as wrong, so nothing is said of longer ones.)"
    )


def _answer(each: Compared) -> str:
    name = each.ground.name
    table = each.comparison.summary().set_index(["mechanism", "task"])
    helps = [
        m.name
        for m in each.comparison.mechanisms
        if m != DIRECT and m.name != COT.name and table.loc[(m.name, PROBLEMS)]["change_low"] > 0
    ]
    alike = with_cot(each)
    beyond = [other for other in helps if alike[other][1] <= ALPHA]
    chance = [alike[other][0].cosine for other in alike if other.startswith(RANDOM)]
    floor = f"random edits {min(chance):.2f} to {max(chance):.2f}" if chance else "no random edits"
    undone = [u for u in each.parts.undone if u.beyond.low > 0]
    if not helps:
        return f"{name}: no mechanism but the CoT prompt raises accuracy for certain, so there is no switch to compare."
    cosines = [alike[other][0].cosine for other in helps]
    return (
        f"{name}: of {len(helps)} mechanisms beside the CoT prompt that raise accuracy for certain, {len(beyond)} "
        "change features as the CoT prompt does, beyond chance "
        f"(cosine {min(cosines):.2f} to {max(cosines):.2f}; {floor}); "
        f"without the features they share, {len(undone)} of {len(each.parts.undone)} lose more right answers than "
        "without matched ones."
    )


def with_cot(each: Compared) -> dict[str, tuple[Overlap, float]]:
    """Every mechanism's overlap with the CoT prompt, and its p adjusted for how many there are (BY)."""
    pairs = {
        (b if a == COT.name else a): alike for (a, b), alike in each.comparison.overlaps.items() if COT.name in (a, b)
    }
    adjusted = benjamini_yekutieli(np.array([alike.p for alike in pairs.values()]))
    return {name: (alike, float(p)) for (name, alike), p in zip(pairs.items(), adjusted, strict=True)}


def page(found: Sequence[Compared]) -> Page:
    """All of it, one model after the other."""
    sections: list[Section] = []
    for each in found:
        sections += _sections(each)
    return Page("Do different ways of making a model reason find the same switch?", verdict(found), tuple(sections))


def _sections(each: Compared) -> Iterator[Section]:
    of, parts, n = each.ground.name, each.parts, each.ground.sizes.n
    followed = min(n, each.ground.sizes.n_followed)
    rows = each.comparison.summary().set_index(["mechanism", "task"])
    yield Table(f"{of}: what each makes of the answers", ANSWERS, tuple(answer_rows(each, rows)), ANSWERS_NOTE)
    yield Table(f"{of}: what it costs", COST, tuple(_cost_rows(each, rows)), "Mean tokens of the answer, and in all.")
    yield Table(f"{of}: shorter at equal accuracy?", SHORTER, tuple(_shorter_rows(each)), SHORTER_NOTE)
    yield Table(f"{of}: what a thought is worth", GAINS, tuple(_gain_rows(each, rows)), GAINS_NOTE)
    yield Figure(f"{of}: the same switch?", plot_overlaps(each.comparison.overlaps, n=n), OVERLAP_NOTE)
    yield Table(f"{of}: overlap with the CoT prompt", OVERLAPS, tuple(_overlap_rows(each)), OVERLAP_P)
    yield Table(f"{of}: features shared with the CoT prompt", SHARED, tuple(_shared_rows(each)), SHARED_NOTE)
    yield Table(f"{of}: without what they share", UNDONE, tuple(_undone_rows(each)), UNDONE_NOTE)
    yield Table(f"{of}: first tokens", ("mechanism", "openings"), tuple(_opening_rows(each)), "With their shares.")
    through = plot_through_steps(parts.steps, WINDOWS, sorted(each.ground.saes), n=followed)
    yield Figure(f"{of}: when and where", through)
    if parts.weights is not None and parts.moved is not None:
        yield Figure(f"{of}: what the adapter changed", plot_weights(parts.weights, parts.moved, n=n))
    yield Table(f"{of}: form or inference", FORMS, tuple(_form_rows(each)), FORMS_NOTE)
    yield Table(f"{of}: a result changed in the chain", FOLLOWED, tuple(_followed_rows(each)), FOLLOWED_NOTE)
    yield Table(f"{of}: by length of the chain", *_length_table(each))
    yield Table(f"{of}: fast and slow", FAST, tuple(_fast_rows(each)), FAST_NOTE)
    if parts.samples:
        yield Figure(f"{of}: one of k samples", plot_pass_at_k(parts.samples, n=n))
    fits = tuple((f.layer, f.explained_variance, f.card_explained_variance, f.l0, f.fits) for f in each.fits)
    yield Table(f"{of}: do the SAEs serve this model?", FITS, fits, FITS_NOTE)
    told = tuple(f"{m.name}: {m.describe()}" for m in each.comparison.mechanisms)
    yield Text(f"{of}: the mechanisms", told)
    if each.left_out:
        yield Text(f"{of}: left out", tuple(f"{name}: {why}" for name, why in each.left_out.items()))


OVERLAP_P = "p by Benjamini and Yekutieli, over these rows; chance is the 95th percentile."
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
SHARED = ("mechanism", "shared with the CoT prompt, and what they write", "its own, and what they write")
SHARED_NOTE = "Features that rise the most surely, with the tokens that their decoder rows raise most (logit lens)."
FORMS = ("worked examples", "accuracy", "against none", "tokens")
FORMS_NOTE = (
    "The CoT prompt after worked examples. Invalid: other results; irrelevant: another problem's working; shuffled: "
    "steps in another order. Where these help as much as valid ones, it is the form that helps."
)
FOLLOWED = ("written by", "chains changed", "answers that follow", "keep", "other", "none")
FOLLOWED_NOTE = (
    "The first result in the model's own chain is another number, and it goes on from there. An answer that follows "
    "was computed from the chain; one that keeps what it was, was not."
)
FITS = ("layer", "explained variance here", "on its card", "L0", "fits")
FITS_NOTE = "On paragraphs of English. Where an SAE does not fit, what its features do here means little."
FAST_NOTE = (
    "Against the direct prompt: δ = δ_c − δ_o, what is corrected less what is spoiled; r_c and r_o are the same among "
    "those wrong, and right, at once."
)


def answer_rows(each: Compared, rows: Any) -> Iterator[tuple[Any, ...]]:
    for mechanism in each.comparison.mechanisms:
        asked = [task for task in each.comparison.tasks if (mechanism.name, task) in rows.index]
        told = {task: rows.loc[(mechanism.name, task)] for task in asked}
        shares = {t: Estimate(r["accuracy"], r["accuracy_low"], r["accuracy_high"]) for t, r in told.items()}
        first = told[PROBLEMS]
        change = Estimate(first["change"], first["change_low"], first["change_high"])
        beyond = [shares.get(task) for task in (*STORIES, KNOWN) if task != PROBLEMS]
        yield (mechanism.name, shares[PROBLEMS], None if mechanism == DIRECT else change, *beyond)


def _cost_rows(each: Compared, rows: Any) -> Iterator[tuple[Any, ...]]:
    for mechanism in each.comparison.mechanisms:
        row = rows.loc[(mechanism.name, PROBLEMS)]
        shares = (row[name] for name in ("tokens", "spent", "unparsable", "truncated", "looping"))
        checked = [None if np.isnan(row[name]) else float(row[name]) for name in ("consistent", "right_if_consistent")]
        yield (mechanism.name, *map(float, shares), *checked)


def _shorter_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    """Of what is to shorten thoughts, where it could be had."""
    found = each.comparison
    long, ended = found.of(COT.name), found.written[COT.name].finished
    for name in (name for name in SHORTENS if name in found.written):
        short = found.of(name)
        fewer = mean_interval(long["n_tokens"].to_numpy(float) - short["n_tokens"].to_numpy(float))
        both = sum(a and b for a, b in zip(ended, found.written[name].finished, strict=True))
        yield (name, fewer, paired_difference(right(short), right(long)), f"{both} of {len(long)}")


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


def _overlap_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    found = with_cot(each)
    for name, (alike, p) in sorted(found.items(), key=lambda pair: -pair[1][0].cosine):
        resid = (alike.resid_cosine, alike.resid_cosine_by_chance)
        ranks = (alike.top, alike.top_by_chance, alike.cka, alike.cka_by_chance)
        yield (name, alike.cosine, alike.cosine_by_chance, p, *resid, *ranks)


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


def _undone_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for one in each.parts.undone:
        yield (one.mechanism, one.whole, one.without, one.matched, one.beyond, ", ".join(map(str, one.features)))


def _opening_rows(each: Compared) -> Iterator[tuple[str, str]]:
    for mechanism in each.comparison.mechanisms:
        tokens = [int(token) for token in each.comparison.of(mechanism.name)["first_token"]]
        best = Counter(tokens).most_common(SHOWN_TOKENS)
        said = [
            f"{each.ground.model.decode([token])!r} {count / len(tokens):.2f}" if token >= 0 else f"nothing {count}"
            for token, count in best
        ]
        yield (mechanism.name, ", ".join(said))


def _form_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for form, row in each.parts.forms.items():
        share = Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
        yield (form, share, Estimate(row["change"], row["change_low"], row["change_high"]), row["tokens"])


def _followed_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    for name, counts in each.parts.followed.items():
        n, share = following_row(counts)
        yield (name, n, share, *(counts[one] for one in counts if one.value != "follows"))


def _length_table(each: Compared) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...], str]:
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
    return header, tuple(rows), "Training, where there was any, had two and three steps."


def _fast_rows(each: Compared) -> Iterator[tuple[Any, ...]]:
    clean = list(each.comparison.of(DIRECT.name)["outcome"])
    for mechanism in each.comparison.mechanisms:
        if mechanism != DIRECT:
            f = fast_slow(mechanism.name, clean, list(each.comparison.of(mechanism.name)["outcome"]))
            yield (mechanism.name, f.delta, f.corrected, f.overthought, f.corrects, f.overthinks)
