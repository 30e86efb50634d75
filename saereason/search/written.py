"""What features write: the tokens that their decoder rows speak for, read through the unembedding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason.features import Feature, FeatureTable
from saereason.model import Model
from saereason.saes import SAE, check_saes, decoder_row, decoder_rows, sae_at


@dataclass(frozen=True)
class Written:
    """The tokens that a feature raises most, and those that it lowers most, with the logits it adds."""

    feature: Feature
    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]


@torch.no_grad()
def written_tokens(model: Model, saes: Mapping[int, SAE], feature: Feature, k: int = 10) -> Written:
    """The logit lens on a feature's decoder row: the `k` tokens that it raises most, and those that it lowers most."""
    logits = logit_lens(model, decoder_row(sae_at(saes, feature), feature.index)[None])[0]
    high, low = logits.topk(k), (-logits).topk(k)

    def said(indices: Tensor, values: Tensor) -> tuple[tuple[str, float], ...]:
        return tuple((model.token_text(i), v) for i, v in zip(indices.tolist(), values.tolist(), strict=True))

    return Written(feature, said(high.indices, high.values), said(low.indices, -low.values))


@torch.no_grad()
def output_scores(model: Model, saes: Mapping[int, SAE], words: Sequence[str]) -> FeatureTable:
    """How much each feature writes some words (Arad et al., arXiv 2505.20063; SAE-Steering, arXiv 2601.03595).

    Column `output`: the mean logit of the words' first tokens, with and without a space before, in standard deviations
    of the feature's logits over the vocabulary. Raises ValueError without words.
    """
    if not saes:
        raise ValueError("there are no SAEs whose features could write; give at least one layer's.")
    check_saes(model, saes)
    tokens = first_tokens(model, words)
    scores = {}
    for layer in sorted(saes):
        rows, found = decoder_rows(saes[layer]), []
        for start in range(0, len(rows), 1024):
            logits = logit_lens(model, rows[start : start + 1024])
            found.append(logits[:, tokens].mean(-1) / logits.std(-1).clamp(min=1e-12))
        scores[layer] = torch.cat(found).cpu().double().numpy()
    index = np.concatenate([np.arange(len(values)) for values in scores.values()])
    layer = np.repeat(list(scores), [len(values) for values in scores.values()])
    return FeatureTable({"layer": layer, "index": index, "output": np.concatenate(list(scores.values()))})


def logit_lens(model: Model, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """The logits of directions, each as if it were the whole residual stream, less their mean over the vocabulary.

    The final norm and the unembedding are the model's own, without their biases; blocks in between are left out.
    """
    head, norm = model.hf.get_output_embeddings().weight, model.final_norm
    rows = rows.to(head)
    if norm is not None:
        rows = norm(rows) - norm(torch.zeros_like(rows[:1]))
    logits = (rows @ head.T).float()
    return logits - logits.mean(-1, keepdim=True)


def check_words(words: Sequence[str]) -> None:
    """Raises ValueError for one text in place of several words, and for none."""
    if isinstance(words, str):
        raise ValueError(f"the words are one text, {words!r}; give a list of words.")
    if not words or not all(word.strip() for word in words):
        raise ValueError("there are no words to look for; give at least one, none of them empty.")


def first_tokens(model: Model, words: Sequence[str]) -> list[int]:
    """The tokens that words begin with, with and without a space before. Raises ValueError without words."""
    check_words(words)
    forms = [form for word in words for form in (word, f" {word}")]
    found = [model.tokenizer(form, add_special_tokens=False)["input_ids"][:1] for form in forms]
    return sorted({token for first in found for token in first})
