"""The cue rung: do a feature's own tokens, put into ordinary texts, switch it on?"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from saereason.features import Feature
from saereason.hooks import read
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE, check_saes, feature_acts, sae_at
from saereason.stats import cohens_dz, d_intervals, largest_d

from .inject import STRATEGIES, Context, Piece, Strategy, drawn_pieces, inject, stand_ins, swapped
from .profile import TokenProfile, top_contexts, top_tokens
from .verdict import CueTrial, StrategyEffect


def try_cues(
    model: Model,
    saes: Mapping[int, SAE],
    feature: Feature,
    texts: Sequence[str | Rendered],
    *,
    plain: Sequence[str | Rendered],
    strategies: Sequence[Strategy] = STRATEGIES,
    n_cues: int = 10,
    min_count: int = 5,
    max_tokens: int = 64,
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CueTrial:
    """Put the tokens that carry a feature on `texts` into `plain` texts, and see whether that switches it on.

    Token injection after arXiv 2601.05679, with `RULE` for a verdict. The value of a text is the feature's largest
    activation in it, and texts are the unit. What differs from the published code: token ids are put in, not words;
    plain texts are cut to `max_tokens` before that, not after (there, what is appended to a long text is cut off);
    the first token of a row, where attention collects, is never read; groups without spread do not count as d = 0;
    the largest of the strategies is corrected for; and every strategy has a control that puts other tokens, about as
    frequent, into the same places. `CueTrial.published` gives their verdict.

    Runs `2 · strategies + 1` times over the plain texts, up to the feature's layer. Raises ValueError where the
    feature is silent on `texts`, for a text twice, and for plain texts of under eight tokens.
    """
    if not strategies or set(strategies) - set(STRATEGIES):
        raise ValueError(f"strategies are {list(strategies)}; give some of {', '.join(STRATEGIES)}.")
    check_saes(model, saes)
    own, ordinary = encoded(model, texts, plain, max_tokens)

    def acts_on(rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [act[1:] for act in activations(model, saes, feature, rows, batch_size)]

    acts = acts_on(own)
    profile = top_tokens([row[1:] for row in own], acts, seed=seed)
    kit = _kit(model, own, acts, ordinary, profile, profile.cues(n_cues, min_count=min_count))
    arms, done = [_peaks(acts_on(ordinary))], 1
    for strategy in strategies:
        for rows in _with_tokens(kit, ordinary, strategy, seed):
            progress(done, 2 * len(strategies) + 1)
            arms.append(_peaks(acts_on(rows)))
            done += 1
    progress(done, done)
    before, injected, other = arms[0], np.stack(arms[1::2], axis=1), np.stack(arms[2::2], axis=1)
    effects, chance = _effects(strategies, before, injected, other, seed)
    said = tuple(model.tokenizer.decode([token]) for token in kit.cues.tolist())
    return CueTrial(
        feature, profile, tuple(kit.cues.tolist()), said, effects, chance, _peaks(acts), before, injected, other
    )


@dataclass(frozen=True, eq=False)
class _Kit:
    """What is put into texts, and what stands in for it."""

    cues: Int[np.ndarray, "cue"]
    weights: Float[np.ndarray, "cue"]
    contexts: Sequence[Context]
    stand_ins: Mapping[int, np.ndarray]
    separator: Piece
    special: set[int]


def _kit(
    model: Model,
    own: Sequence[Sequence[int]],
    acts: Sequence[np.ndarray],
    ordinary: Sequence[Sequence[int]],
    profile: TokenProfile,
    cues: tuple[np.ndarray, np.ndarray],
) -> _Kit:
    contexts = top_contexts([row[1:] for row in own], acts, cues[0])
    counts = Counter(token for row in (*own, *ordinary) for token in row)
    means = dict(zip(profile.token.tolist(), profile.mean.tolist(), strict=True))
    needed = {*cues[0].tolist(), *(token for before, cue, after in contexts for token in (*before, cue, *after))}
    special = set(model.tokenizer.all_special_ids)
    others = stand_ins(sorted(needed), counts, means, special | set(cues[0].tolist()))
    comma = tuple(model.tokenizer(",", add_special_tokens=False)["input_ids"])
    return _Kit(*cues, contexts, others, comma, special)


def _with_tokens(
    kit: _Kit, rows: Sequence[Sequence[int]], strategy: Strategy, seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The rows with the feature's tokens put in, and with others in the same places."""
    treated, control = [], []
    for n, row in enumerate(rows):
        key = (seed, STRATEGIES.index(strategy), n)
        rng, first = np.random.default_rng(key), int(row[0] in kit.special)
        pieces = drawn_pieces(strategy, kit.cues, kit.weights, kit.contexts, rng)
        for arm, given in ((treated, pieces), (control, swapped(pieces, kit.stand_ins, rng))):
            arm.append(inject(row, given, strategy, seed=(*key, 1), first=first, separator=kit.separator))
    return treated, control


def _peaks(acts: Sequence[np.ndarray]) -> Float[np.ndarray, "text"]:
    return np.array([act.max() for act in acts])


def _effects(
    strategies: Sequence[Strategy], plain: np.ndarray, injected: np.ndarray, control: np.ndarray, seed: int
) -> tuple[tuple[StrategyEffect, ...], float]:
    bases = np.broadcast_to(plain[:, None], injected.shape), control
    estimates = [d_intervals(injected, base, seed=seed) for base in bases]
    paired = [cohens_dz(injected, base) for base in bases]
    tests = [largest_d(injected, base, seed=seed) for base in bases]
    p = np.maximum(tests[0][0], tests[1][0])
    effects = [
        StrategyEffect(
            strategy, estimates[0][s], estimates[1][s], float(paired[0][s]), float(paired[1][s]), float(p[s])
        )
        for s, strategy in enumerate(strategies)
    ]
    return tuple(effects), max(tests[0][1], tests[1][1])


def encoded(
    model: Model, texts: Sequence[str | Rendered], plain: Sequence[str | Rendered], max_tokens: int = 64
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the feature's own texts, whole, and of the plain texts, cut. Raises ValueError as `try_cues`."""
    own = [model.encode(text) for text in texts]
    ordinary = [model.encode(text)[:max_tokens] for text in plain]
    short = [n for n, row in enumerate(ordinary) if len(row) < 8]
    if short:
        raise ValueError(f"plain text {short[0]} has {len(ordinary[short[0]])} tokens; give texts of at least 8.")
    if min(map(len, own), default=0) < 2 or len(ordinary) < 2:
        raise ValueError(f"{len(own)} own and {len(ordinary)} plain texts; give some of two tokens or more, and two.")
    often = Counter(map(tuple, own + ordinary)).most_common(1)[0]
    if often[1] > 1:
        raise ValueError(f"a text is there {often[1]} times ({model.decode(often[0][:12])!r}…); give each text once.")
    return own, ordinary


@torch.no_grad()
def activations(
    model: Model, saes: Mapping[int, SAE], feature: Feature, rows: Sequence[Sequence[int]], batch_size: int = 32
) -> list[Float[np.ndarray, "_"]]:
    """The feature's activation at every token of every row, batched by length."""
    sae, found = sae_at(saes, feature), [np.zeros(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad([rows[n] for n in chosen], pad_token=model.pad_token, device=model.device)
        resid = read(model, batch, [feature.layer])[feature.layer]
        acts = feature_acts(sae, resid[batch.mask].float(), feature.index).cpu().double().numpy()
        ends = np.cumsum([len(rows[n]) for n in chosen])[:-1]
        for n, part in zip(chosen, np.split(acts, ends), strict=True):
            found[n] = part
    return found
