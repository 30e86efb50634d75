"""ReasonScore: features that are active around the words people reason with (Galichin et al., arXiv 2503.18878)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason.examples import tokens_of, touches
from saereason.features import FeatureTable
from saereason.hooks import read
from saereason.model import Model, pad
from saereason.saes import SAE, Active, Encoder, check_saes

from .written import check_words

WORDS = (
    "alternatively", "hmm", "maybe", "wait", "perhaps", "let me", "therefore", "however", "but", "another"
)  # fmt: skip
"""The paper's vocabulary; case does not matter."""

NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Chinese, Japanese and Korean, in which a word may touch the next."""

WINDOWS = {"paper": (2, 3), "code": (1, 2)}
"""Tokens before and after a word that count as around it, as the paper and as its code have them."""

SHARPNESS = 0.7
"""Exponent of the entropy."""


@dataclass(frozen=True, eq=False)
class WordSums:
    """Sums of activation over tokens around each word, around any word, and elsewhere."""

    counts: Float[Tensor, "words_and_2"]
    totals: Float[Tensor, "words_and_2 d_sae"]

    def __add__(self, other: "WordSums") -> "WordSums":
        return WordSums(self.counts + other.counts, self.totals + other.totals)


def reason_score(sums: WordSums) -> Float[Tensor, "d_sae"]:
    """A feature's share of all activation around the words, times its evenness over them, less its share elsewhere.

    μ(i, D_R) / Σ_j μ(j, D_R) · H_i^0.7 − μ(i, D_¬R) / Σ_j μ(j, D_¬R), with H_i the entropy of the feature's mean
    activation over the words, as a share of its maximum, the logarithm of the number of words: a feature is as even as
    it can be only where every word occurs. Raises ValueError where fewer than two words occur, or no other tokens do.
    """
    there = sums.counts[:-2] > 0
    if int(there.sum()) < 2 or sums.counts[-1] == 0:
        raise ValueError(
            f"{int(there.sum())} of the words occur, with {int(sums.counts[-1])} tokens away from any; ReasonScore "
            "needs two words and other tokens. Give more texts, or other words."
        )
    by_word = sums.totals[:-2][there] / sums.counts[:-2][there, None]
    share = by_word / by_word.sum(0).clamp(min=torch.finfo(by_word.dtype).tiny)
    entropy = -torch.special.xlogy(share, share).sum(0) / np.log(len(there))
    inside, outside = sums.totals[-2] / sums.counts[-2], sums.totals[-1] / sums.counts[-1]
    return _of_all(inside) * entropy.clamp(min=0) ** SHARPNESS - _of_all(outside)


def load_lexicon(path: str | Path, skill: str | None = None) -> tuple[str, ...]:
    """Words from a JSON file: a list, or lists by skill, of which one or (without `skill`) all are taken."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no lexicon ({error}); give a JSON file with a list of words.") from error
    if isinstance(found, dict):
        if skill is not None and skill not in found:
            raise ValueError(f"{path} has no skill {skill!r}; it has {sorted(found)}.")
        lists = [found[skill]] if skill is not None else list(found.values())
        found = [word for words in lists for word in words] if all(isinstance(words, list) for words in lists) else None
    if not isinstance(found, list) or not found or not all(isinstance(word, str) and word.strip() for word in found):
        raise ValueError(f'{path} holds no list of words; give JSON such as ["wait", "therefore"], or lists by skill.')
    return tuple(dict.fromkeys(word.strip().lower() for word in found))


@torch.no_grad()
def reason_scores(
    model: Model,
    saes: Mapping[int, SAE],
    texts: Sequence[str],
    *,
    words: Sequence[str] = WORDS,
    window: str = "paper",
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """ReasonScore of every feature over texts in which somebody reasons, all layers at once.

    Columns: `reason_score`; `around` and `elsewhere`, mean activation around the words and away from them. A layer's
    shares are of its own features. `window` is one of `WINDOWS`. A text's first token is left out. The paper takes the
    features above the score's quantile 0.997.
    """
    if window not in WINDOWS:
        raise ValueError(f"no window {window!r}; there are {sorted(WINDOWS)}.")
    if not saes or not texts or not all(texts):
        raise ValueError(f"there are {len(saes)} SAEs and {len(texts)} texts; give at least one of each, none empty.")
    check_words(words)
    check_saes(model, saes)
    encoders = {layer: Encoder.of(saes[layer], model.dtype) for layer in sorted(saes)}
    sums: dict[int, WordSums] = {}
    for start in range(0, len(texts), batch_size):
        found = [around(model, text, words, WINDOWS[window]) for text in texts[start : start + batch_size]]
        batch = pad([ids for ids, _ in found], pad_token=model.pad_token, side="right", device=model.device)
        keep = batch.mask.clone()
        keep[:, 0] = False
        near = torch.cat([marks[1:] for _, marks in found]).to(model.device)
        for layer, resid in read(model, batch, list(encoders)).items():
            part = _sums(encoders[layer](resid[keep]), near, encoders[layer].d_sae)
            sums[layer] = sums[layer] + part if layer in sums else part
        progress(min(start + batch_size, len(texts)), len(texts))
    return _table(sums)


def around(
    model: Model, text: str, words: Sequence[str], window: tuple[int, int]
) -> tuple[list[int], Bool[Tensor, "pos word"]]:
    """A text's token ids, and for each token the words it stands near: within a window of tokens before and after."""
    ids, places = tokens_of(model, text)
    near = torch.zeros(len(ids), len(words), dtype=torch.bool)
    for n, word in enumerate(words):
        for match in re.finditer(_whole(word), text, re.IGNORECASE):
            hit = [k for k, place in enumerate(places) if touches(place, [match.span()])]
            near[max(0, min(hit, default=0) - window[0]) : max(hit, default=-1) + 1 + window[1] if hit else 0, n] = True
    return ids, near


def _whole(word: str) -> str:
    """A pattern for a word that is not part of another; where it ends in a sign, or in a script without spaces, it may
    be.
    """
    ends = (r"\b" if re.match(r"\w", edge) and not NO_SPACES.match(edge) else "" for edge in (word[:1], word[-1:]))
    return re.escape(word).join(ends)


def _sums(active: Active, near: Bool[Tensor, "token word"], d_sae: int) -> WordSums:
    kinds = torch.cat([near, near.any(1, keepdim=True), ~near.any(1, keepdim=True)], dim=1)
    totals = torch.zeros(kinds.shape[1], d_sae, device=near.device)
    for n, kind in enumerate(kinds.T):
        chosen = kind[active.token]
        totals[n].index_add_(0, active.index[chosen], active.acts[chosen])
    return WordSums(kinds.sum(0).cpu().double(), totals.cpu().double())


def _of_all(mean: Tensor) -> Tensor:
    return mean / mean.sum().clamp(min=torch.finfo(mean.dtype).tiny)


def _table(sums: Mapping[int, WordSums]) -> FeatureTable:
    columns = {"reason_score": [], "around": [], "elsewhere": []}
    for each in sums.values():
        columns["reason_score"].append(reason_score(each))
        columns["around"].append(each.totals[-2] / each.counts[-2])
        columns["elsewhere"].append(each.totals[-1] / each.counts[-1])
    widths = [each.totals.shape[1] for each in sums.values()]
    return FeatureTable(
        {
            "layer": np.repeat(list(sums), widths),
            "index": np.concatenate([np.arange(width) for width in widths]),
            **{name: torch.cat(values).numpy() for name, values in columns.items()},
        }
    )
