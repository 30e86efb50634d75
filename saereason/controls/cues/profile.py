"""Which tokens carry a feature's activation, and how few of them suffice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from saereason.stats import Estimate, bootstrap


@dataclass(frozen=True, eq=False)
class TokenProfile:
    """A feature's activation shared out over token ids; the token that carries most comes first."""

    token: Int[np.ndarray, "token"]
    count: Int[np.ndarray, "token"]
    """How often each occurs."""

    mass: Float[np.ndarray, "token"]
    """Activation summed over all its occurrences; ties in the order of ids."""

    n_top: int
    concentration: Estimate
    """Share of the mass in the `n_top` tokens that carry most, with a bootstrap interval over texts.

    Over 0.5, arXiv 2601.05679 speaks of high dependency (its text sums mass over the 30 tokens of highest mean
    activation; its code counts positions above a tenth of the maximum instead). The tokens were chosen on the same
    texts, so few texts flatter it.
    """

    @property
    def mean(self) -> Float[np.ndarray, "token"]:
        """Mean activation where the token stands."""
        return self.mass / self.count

    @property
    def even_share(self) -> float:
        """What `concentration` would be if activation ignored tokens: the share of positions these tokens take."""
        return float(self.count[: self.n_top].sum() / self.count.sum())

    @property
    def entropy(self) -> float:
        """Of the mass over tokens, in bits: 0 if one token carries all."""
        share = self.mass[self.mass > 0] / self.mass.sum()
        return float(-(share * np.log2(share)).sum()) + 0.0

    @property
    def relative_entropy(self) -> float:
        """`entropy` over its maximum, the binary logarithm of the number of distinct tokens seen; 0 for one token."""
        return self.entropy / float(np.log2(len(self.token))) if len(self.token) > 1 else 0.0

    def cues(self, n: int, *, min_count: int = 5) -> tuple[Int[np.ndarray, "cue"], Float[np.ndarray, "cue"]]:
        """The n tokens of highest mean activation, and these means; fewer if fewer have any.

        As published, tokens that occur less than `min_count` times are left out; if no other carries activation, those
        that occur most often stand in.
        """
        carries = self.mass > 0
        often = np.flatnonzero((self.count >= min(min_count, self.count[carries].max())) & carries)
        best = often[np.argsort(-self.mean[often], kind="stable")[:n]]
        return self.token[best], self.mean[best]


def top_tokens(
    rows: Sequence[Sequence[int]], acts: Sequence[Float[np.ndarray, "_"]], *, n_top: int = 30, seed: int = 0
) -> TokenProfile:
    """Share out one feature's activations, a row of them for each row of token ids, over the tokens they stand on.

    The unit of the interval is the text (a row): twice the tokens in a text make it no narrower. Raises ValueError
    where rows and activations do not match, an activation is negative, or the feature is silent on all of them.
    """
    lengths = [(len(row), len(act)) for row, act in zip(rows, acts, strict=True)]
    wrong = [n for n, (tokens, values) in enumerate(lengths) if tokens != values]
    if wrong:
        raise ValueError(f"row {wrong[0]} has (tokens, activations) = {lengths[wrong[0]]}; give one for each token.")
    flat = np.concatenate([np.asarray(act, dtype=np.float64) for act in acts]) if rows else np.zeros(0)
    if not (flat >= 0).all() or not np.isfinite(flat).all():
        raise ValueError("there are activations that are negative or not finite; give the SAE's own.")
    if not flat.any():
        raise ValueError(f"the feature is silent on all {len(rows)} texts; give texts on which it fires.")
    token, place = np.unique(np.concatenate([np.asarray(row) for row in rows]), return_inverse=True)
    mass = np.bincount(place, flat)
    order = np.argsort(-mass, kind="stable")
    text = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    is_top = np.isin(place, order[:n_top])
    of_text, of_top = np.bincount(text, flat), np.bincount(text, flat * is_top)
    fires = of_text > 0  # a text on which it is silent says nothing of where its activation goes
    share = bootstrap(lambda top, whole: float(top.sum() / whole.sum()), of_top[fires], of_text[fires], seed=seed)
    return TokenProfile(token[order], np.bincount(place)[order], mass[order], n_top, share)


def top_contexts(
    rows: Sequence[Sequence[int]],
    acts: Sequence[Float[np.ndarray, "_"]],
    cues: Int[np.ndarray, "cue"],
    n: int = 20,
) -> list[tuple[tuple[int, ...], int, tuple[int, ...]]]:
    """Where the feature is most active on a cue: the token before, the cue, the token after; one place a text.

    The n strongest texts, strongest first. Before or after is empty at the end of a row.
    """
    found = []
    for row, act in zip(rows, acts, strict=True):
        on_cue = np.where(np.isin(row, cues), act, 0.0)
        at = int(on_cue.argmax())
        if on_cue[at] > 0:
            found.append((-on_cue[at], (tuple(row[at - 1 : at] if at else ()), row[at], tuple(row[at + 1 : at + 2]))))
    return [context for _, context in sorted(found, key=lambda pair: pair[0])[:n]]
