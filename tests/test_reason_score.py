"""ReasonScore against a plain loop, and against features that were made to be found."""

import json
import math
import re

import numpy as np
import pytest
import torch

from saereason import hooks, load_lexicon, output_scores, output_slopes, reason_scores
from saereason.model import pad
from saereason.search.reason_score import WINDOWS, WORDS, WordSums, _whole, around, reason_score

TEXTS = [
    "Two and two. Wait, let me think: maybe four. Therefore it is four.",
    "However hard it looks, wait. Perhaps not. The sky is blue and the sea is wide.",
    "Nothing of the sort is in this one, though it is waiting.",
]


def naive(model, saes, texts, words, window):
    """The formula, token by token; activations by layer."""
    found = {}
    for layer, sae in saes.items():
        inside, outside, by_word = [], [], {}
        for text in texts:
            ids = model.encode(text)
            acts = sae.encode(hooks.read(model, pad([ids], pad_token=0), [layer])[layer][0]).double()
            near = [set() for _ in ids]
            for word in words:
                start = text.lower().find(word)
                while start >= 0:  # a character is a token
                    end = start + len(word)
                    bare = not (text[start - 1 : start].isalpha() or text[end : end + 1].isalpha())
                    for k in range(max(0, start - window[0]), min(len(ids), end + window[1])) if bare else ():
                        near[k].add(word)
                    start = text.lower().find(word, start + 1)
            for k in range(1, len(ids)):
                (inside if near[k] else outside).append(acts[k])
                for word in near[k]:
                    by_word.setdefault(word, []).append(acts[k])
        inside, outside = torch.stack(inside).mean(0), torch.stack(outside).mean(0)
        means = torch.stack([torch.stack(each).mean(0) for each in by_word.values()])
        entropy = torch.zeros(len(inside))
        for i in range(len(inside)):
            share = means[:, i] / means[:, i].sum() if means[:, i].sum() > 0 else means[:, i]
            entropy[i] = -sum(p * math.log(p) for p in share.tolist() if p > 0) / math.log(len(words))
        found[layer] = inside / inside.sum() * entropy.double() ** 0.7 - outside / outside.sum()
    return torch.cat([found[layer] for layer in sorted(found)])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_score_is_the_formula(model, saes, window, batch_size):
    saes = {layer: saes[layer] for layer in (1, 3)}
    table = reason_scores(model, saes, TEXTS, window=window, batch_size=batch_size)
    np.testing.assert_allclose(table["reason_score"], naive(model, saes, TEXTS, WORDS, WINDOWS[window]), atol=1e-4)
    assert table["layer"].tolist() == [1] * 96 + [3] * 96


def test_words_count_in_any_case_and_only_whole(model):
    text = "WAIT a bit, waiting. (wait)"
    _, near = around(model, text, ["wait", "let me"], (0, 0))
    assert [text[k] for k in near[:, 0].nonzero()[:, 0].tolist()] == list("WAITwait")
    assert not near[:, 1].any()


def test_a_feature_of_all_the_words_beats_one_of_a_single_word_and_one_of_everything():
    counts = torch.tensor([10.0, 10, 10, 10, 40, 400], dtype=torch.float64)
    even, single, everywhere = (
        torch.tensor([1.0, 1, 1, 1, 4, 4]),
        torch.tensor([4.0, 0, 0, 0, 4, 4]),
        torch.tensor([2.0, 2, 2, 2, 8, 80]),
    )
    scores = reason_score(WordSums(counts, torch.stack([even, single, everywhere], dim=1).double()))
    assert scores[0] > 0 > scores[2] and scores[0] > scores[1]


def test_texts_without_the_words_are_refused(model, topk_saes):
    with pytest.raises(ValueError, match="1 of the words occur"):
        reason_scores(model, topk_saes, ["wait, and that is all there is"])
    with pytest.raises(ValueError, match="no window 'wide'"):
        reason_scores(model, topk_saes, TEXTS, window="wide")


def test_lexicons_are_lists_or_lists_by_skill(tmp_path):
    path = tmp_path / "words.json"
    path.write_text(json.dumps(["wait", " wait", "Wait", "let me see"]))
    assert load_lexicon(path) == ("wait", "let me see")
    path.write_text(json.dumps({"a": ["thus"], "b": ["wait", "Thus"]}))
    assert load_lexicon(path, "b") == ("wait", "thus") and load_lexicon(path) == ("thus", "wait")
    with pytest.raises(ValueError, match="has no skill 'c'"):
        load_lexicon(path, "c")
    for text in ("{", "3", "[1]", '[" "]'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"lexicon|no list of words"):
            load_lexicon(path)


@pytest.mark.parametrize(
    "lexicon",
    ['{"a": "wait"}', '{"meta": "v1", "words": ["wait"]}', '{"a": {"wait": 1}}', '{"a": 1}', "[]", "{}", "[1]"],
)
def test_what_is_no_lexicon_is_refused(tmp_path, lexicon):
    (tmp_path / "words.json").write_text(lexicon)
    with pytest.raises(ValueError, match="holds no list of words"):
        load_lexicon(tmp_path / "words.json")


@pytest.mark.parametrize(
    ("word", "text", "there"),
    [
        ("wait", "await it", False),
        ("wait", "so, Wait!", True),
        ("hmm...", "and hmm... yes", True),
        ("(a)", "say (a) or", True),
        ("等等", "我想等等看", True),
        ("let me", "let men", False),
    ],
)
def test_words_are_whole_but_where_they_end_in_signs_or_in_a_script_without_spaces(word, text, there):
    assert bool(re.search(_whole(word), text, re.IGNORECASE)) is there


def test_a_text_in_place_of_words_or_of_texts_is_refused(model, topk_saes):
    with pytest.raises(ValueError, match="the words are one text, 'step'; give a list"):
        reason_scores(model, topk_saes, ["a step on"], words="step")
    for score in (output_scores, lambda *given: output_slopes(*given[:2], ["Hi", "Ho"], given[2])):
        with pytest.raises(ValueError, match="the words are one text, 'step'; give a list"):
            score(model, topk_saes, "step")
        with pytest.raises(ValueError, match="there are no words to look for"):
            score(model, topk_saes, [])
    with pytest.raises(ValueError, match="there are 4 SAEs and 2 texts; give at least one of each, none empty"):
        reason_scores(model, topk_saes, ["", ""])
    with pytest.raises(ValueError, match="there are no SAEs whose features could write"):
        output_scores(model, {}, ["step"])
    with pytest.raises(ValueError, match="the context of tiny-llama is 512"):
        reason_scores(model, topk_saes, ["wait and so on but " * 40])
