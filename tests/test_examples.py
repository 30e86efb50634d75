"""What is compared with what: pairs, texts, stretches, graded answers."""

import re

import pytest
import torch

from saereason.examples import Examples

TEXTS = ["One. So we add two. Three.", "So be it, so it is.", "Nothing here", "So"]


def scored(model, examples):
    """The characters on and off of each row, as text (the tiny tokenizer has a token a character)."""
    parts = []
    for row in range(len(examples.tokens)):
        valid, label = examples.valid[row], examples.label[row]
        decode = model.tokenizer.decode
        parts.append((decode(examples.tokens[row][valid & label]), decode(examples.tokens[row][valid & ~label])))
    return parts


def test_a_pattern_marks_what_it_matches(model):
    examples = Examples.marked(model, TEXTS, r"(?i)\bso\b")
    assert scored(model, examples) == [("So", "ne.  we add two. Three."), ("oso", " be it,  it is.")]
    assert examples.observations().tolist() == [[0, 1], [0, 0], [1, 1], [1, 0]]


def test_labelled_sentences_are_compared_with_each_other_alone(model):
    text = "First part. Second part. Third."
    on, off = [m.span() for m in re.finditer("Second part.", text)], [m.span() for m in re.finditer("Third.", text)]
    examples = Examples.spans(model, [text, "none"], [on, []], [off, []])
    assert scored(model, examples) == [("Second part.", "Third.")]


def test_texts_without_both_kinds_are_refused(model):
    with pytest.raises(ValueError, match="none of 2 texts has tokens of both kinds"):
        Examples.marked(model, ["abc", "def"], "x")
    with pytest.raises(ValueError, match="0 texts on and 1 off"):
        Examples.texts(model, [], ["abc"])
    with pytest.raises(ValueError, match="of at least two tokens"):
        Examples.texts(model, ["a"], ["abc"])


def test_graded_answers_are_on_where_they_are_right(model):
    written = [model.encode("= 4"), model.encode("five")]
    examples = Examples.graded(model, ["2 + 2", "1 + 3"], written, [True, False])
    assert scored(model, examples) == [("= 4", ""), ("", "five")]
    assert examples.observations().tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="2 prompts, 1 answers, 2 grades"):
        Examples.graded(model, ["a", "b"], written[:1], [True, False])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_batches_hold_whole_groups_and_lose_nothing(model, size):
    examples = Examples.pair(model, ["a", "bcd", "ef"], ["gh", "i", "jklmno"])
    parts = list(examples.batches(size, torch.device("cpu")))
    assert torch.cat([part.group for part in parts]).tolist() == [0, 0, 1, 1, 2, 2]
    assert all(len(part.group) <= max(size, 2) and len(part.group) % 2 == 0 for part in parts)
    texts = [
        model.tokenizer.decode(row[mask]) for part in parts for row, mask in zip(part.tokens, part.mask, strict=True)
    ]
    whole = [model.tokenizer.decode(row[mask]) for row, mask in zip(examples.tokens, examples.mask, strict=True)]
    assert texts == whole


def test_texts_longer_than_the_context_are_refused_however_they_are_given(model):
    long, short = "so it is " * 70, "so it is"
    with pytest.raises(ValueError, match=r"has 6\d\d tokens and the context of tiny-llama is 512"):
        Examples.marked(model, [long], "it")
    ids = [[5] * 600]
    with pytest.raises(ValueError, match="the context of tiny-llama is 512"):
        Examples.pair(model, [short], [short + "n't"], written=(ids, ids))
    with pytest.raises(ValueError, match="the context of tiny-llama is 512"):
        Examples.graded(model, [short], ids, [True])


def test_what_marks_nothing_that_can_be_read_is_refused(model):
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        Examples.marked(model, ["a (b"], "(")
    with pytest.raises(ValueError, match="2 texts have stretches for 1"):
        Examples.spans(model, ["a b c", "d e f"], [[(0, 1)]])
