"""Interventions: where they act, what they say they did, and what they refuse."""

import dataclasses

import pytest
import torch
from conftest import tiny_sae
from strategies import WHENS, assert_close, n_hooks

from saereason import hooks
from saereason.features import Feature
from saereason.generate import generate
from saereason.model import pad
from saereason.saes import decoder_row, feature_acts
from saereason.steering import (
    Add,
    AddVector,
    After,
    Boost,
    Clamp,
    Everywhere,
    Generated,
    LastPromptToken,
    Prompt,
    Scale,
    ScaleBlock,
    SilentEditError,
    Splice,
    Steps,
    While,
    parse_when,
    steered,
)

F, G = Feature(1, 3), Feature(1, 4)
ROWS, LENGTHS = [[20, 21, 22, 23, 24, 25], [30, 31, 32], [40, 41, 42, 43]], [3, 1, 2]
EXPECTED = {
    Everywhere(): [{0, 1, 2, 3, 4, 5}, {0, 1, 2}, {0, 1, 2, 3}],
    Prompt(): [{0, 1, 2}, {0}, {0, 1}],
    LastPromptToken(): [{2}, {0}, {1}],
    Generated(): [{3, 4, 5}, {1, 2}, {2, 3}],
    Steps(1, 1): [{4}, {2}, {3}],
    Steps(-2, -2): [{1}, set(), {0}],
    Steps(-1, 0): [{2, 3}, {0, 1}, {1, 2}],
}


def resid_of(model, layer, *, side="left", lengths=LENGTHS):
    """The residual stream after a block, one tensor a row, without padding."""
    batch = pad(ROWS, pad_token=0, side=side)
    with hooks.prompts(torch.tensor(lengths)):
        resid = hooks.read(model, batch, [layer])[layer]
    return [each[mask] for each, mask in zip(resid, batch.mask, strict=True)]


def interventions(when):
    return [
        Add(F, 3.0, when),
        Clamp(F, 30.0, when),
        Scale(Feature(1, 7), -2.0, when),
        AddVector(1, torch.ones(32), 0.5, when),
        ScaleBlock(1, 0.5, when),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("when", EXPECTED, ids=lambda when: type(when).__name__)
def test_every_intervention_acts_where_its_when_says_and_nowhere_else(any_model, when, side):
    saes = {1: tiny_sae("standard", 1)}
    saes[1].b_enc.data[7] = 100.0
    clean = resid_of(any_model, 1, side=side)
    for intervention in interventions(when):
        with steered(any_model, saes, intervention) as steering:
            edited = resid_of(any_model, 1, side=side)
        changed = [set((b - a).abs().sum(-1).nonzero()[:, 0].tolist()) for a, b in zip(clean, edited, strict=True)]
        assert changed == EXPECTED[when]
        [edit] = steering.receipt.edits
        assert (edit.name, edit.layer) == (str(intervention), 1)
        assert edit.firings == sum(map(len, changed))
        assert edit.positions == tuple(sorted(set().union(*changed)))
        sizes = torch.cat([(b - a).norm(dim=-1) / a.norm(dim=-1) for a, b in zip(clean, edited, strict=True)])
        assert edit.relative_size == pytest.approx(float(sizes.sum()) / edit.firings, rel=1e-4)


def test_each_intervention_does_its_sum(any_model, saes):
    sae, row = saes[1], decoder_row(saes[1], 3)
    [before], [clean] = (torch.cat(resid_of(any_model, layer))[None] for layer in (0, 1))
    acts = sae.encode(clean)[:, 3:4]
    for intervention, expected in (
        (Add(F, 3.0), clean + 3.0 * row),
        (Clamp(F, 2.0), clean + (2.0 - acts) * row),
        (Clamp(F, 0.0), clean - acts * row),
        (Scale(F, 4.0), clean + 3.0 * acts * row),
        (AddVector(1, torch.arange(32.0), -0.5), clean - 0.5 * torch.arange(32.0)),
        (ScaleBlock(1, 0.0), before),
        (ScaleBlock(1, 1.5), before + 1.5 * (clean - before)),
    ):
        with steered(any_model, saes, intervention):
            assert_close([torch.cat(resid_of(any_model, 1))], [expected])


def test_interventions_of_one_block_act_at_once_and_nested_ones_in_turn(model, saes):
    more, to_nothing = AddVector(1, 20 * decoder_row(saes[1], 3)), Clamp(F, 0.0)
    clean = torch.cat(resid_of(model, 1))
    with steered(model, saes, more, to_nothing):
        at_once = torch.cat(resid_of(model, 1))
    with steered(model, saes, more), steered(model, saes, to_nothing):
        in_turn = torch.cat(resid_of(model, 1))
    acts = feature_acts(saes[1], clean, 3)[:, None]
    assert_close([at_once], [clean + (20 - acts) * decoder_row(saes[1], 3)])
    raised = clean + 20 * decoder_row(saes[1], 3)
    assert_close([in_turn], [raised - feature_acts(saes[1], raised, 3)[:, None] * decoder_row(saes[1], 3)])


@pytest.mark.parametrize("when", WHENS, ids=lambda when: type(when).__name__)
def test_the_hugging_face_way_of_generating_is_steered_like_ours(any_model, topk_saes, when, prompts):
    batch = pad([any_model.encode(prompt) for prompt in prompts], pad_token=0)
    with steered(any_model, topk_saes, Add(F, 9.0, when)) as steering:
        ours = generate(any_model, prompts, max_new_tokens=8)
    with steered(any_model, topk_saes, Add(F, 9.0, when)) as theirs:
        out = any_model.hf.generate(batch.tokens, attention_mask=batch.mask.long(), max_new_tokens=8, do_sample=False)
    wrote = [row[: row.index(2)] if 2 in row else row for row in out[:, batch.tokens.shape[1] :].tolist()]
    assert [list(row) for row in ours.tokens] == wrote
    if not isinstance(when, While):  # Hugging Face runs rows on that have ended, where a condition may hold
        assert [e.positions for e in theirs.receipt.edits] == [e.positions for e in steering.receipt.edits]


@pytest.mark.parametrize("when", [Prompt(), LastPromptToken(), Generated(), Steps(0, 2)])
def test_without_a_cache_the_hugging_face_way_cannot_tell_where_the_prompt_ends(model, topk_saes, when):
    tokens, options = torch.tensor([[20, 21, 22]]), {"max_new_tokens": 4, "do_sample": False, "use_cache": False}
    before = n_hooks(model)
    with (
        pytest.raises(ValueError, match="cannot tell where the prompt ends"),
        steered(model, topk_saes, Add(F, 9.0, when)),
    ):
        model.hf.generate(tokens, **options)
    assert n_hooks(model) == before
    with steered(model, topk_saes, Add(F, 9.0)):
        assert model.hf.generate(tokens, **options).tolist() == model.hf.generate(tokens, max_new_tokens=4).tolist()


def test_a_receipt_counts_each_edit_by_itself_and_so_far(model, topk_saes, prompts):
    same = Add(F, 1.0, LastPromptToken())
    with steered(model, topk_saes, same, Add(G, 1.0)) as outer, steered(model, topk_saes, same):
        assert outer.receipt.firings == 0
        wrote = generate(model, prompts, max_new_tokens=3)
        once = outer.receipt
        generate(model, prompts, max_new_tokens=3)
    assert [(edit.name, edit.firings) for edit in wrote.receipt.edits] == [
        ("Add(L1/3, 1)", 4),
        ("Add(L1/4, 1)", once.edits[1].firings),
        ("Add(L1/3, 1)", 4),
    ]
    assert once.edits[0].firings == 4
    assert outer.receipt.firings == 2 * once.firings
    assert str(once).splitlines()[0].startswith("Add(L1/3, 1): 4 firings, |change|/|residual| 0.")
    assert once.edits[0].rows == (0, 1, 2, 3)
    with steered(model, topk_saes, Add(G, 1.0, After("zzzqqq")), Add(F, 1.0)):
        never, once = generate(model, prompts, max_new_tokens=3).receipt.edits
    assert (never.name, never.firings, never.rows) == ("Add(L1/4, 1)", 0, ()) and once.firings > 0
    assert generate(model, prompts, max_new_tokens=3).receipt.edits == ()


def test_an_edit_that_never_fires_is_an_error(model, topk_saes):
    late = steered(model, topk_saes, Add(F, 1.0, Steps(5, 9)), Add(G, 1.0))
    with pytest.raises(SilentEditError, match=r"Add\(L1/3, 1\) never fired.*Check its `when`"), late:
        generate(model, ["Hi"], max_new_tokens=5)
    unused = steered(model, topk_saes, Add(F, 1.0))
    with pytest.raises(SilentEditError, match="that this model ran within the block"), unused:
        pass


def test_an_exception_in_the_block_is_not_hidden_by_a_silent_edit(model, topk_saes):
    with pytest.raises(KeyError), steered(model, topk_saes, Add(F, 1.0)):
        raise KeyError("the user's own")


SAE_OF_16 = tiny_sae("standard", 1, d_in=16)
UNNAMED = tiny_sae("standard", 1)
UNNAMED.cfg.metadata.hook_name = None


@pytest.mark.parametrize(
    ("saes", "changes", "sentence"),
    [
        ({}, [Add(F, 1.0)], r"no SAE at layer 1; there are SAEs at layers \[\]"),
        ({2: tiny_sae("topk", 2)}, [Add(F, 1.0)], r"no SAE at layer 1; there are SAEs at layers \[2\]"),
        (None, [Scale(F, 1.0)], "no SAE at layer 1"),
        ({1: SAE_OF_16}, [Add(F, 1.0)], "SAE at layer 1 is for d_model 16 and tiny-llama has 32.*another model"),
        ({1: tiny_sae("topk", 2)}, [Add(F, 1.0)], "SAE given for layer 1 reads layer 2; give it under that layer"),
        ({1: UNNAMED}, [Add(F, 1.0)], "the SAE at layer 1 does not say which hook point it reads"),
        ({1: tiny_sae("topk", 1)}, [Add(Feature(1, 96), 1.0)], "L1/96 is out of range.*features 0 to 95"),
        ({1: tiny_sae("topk", 1)}, [Add(Feature(1, -1), 1.0)], "L1/-1 is out of range.*features 0 to 95"),
        ({9: tiny_sae("topk", 9)}, [Add(Feature(9, 0), 1.0)], "tiny-llama has no layer 9; its layers are 0 to 3"),
        ({}, [ScaleBlock(4, 0.0)], "tiny-llama has no layer 4; its layers are 0 to 3, counted from 0"),
        ({}, [AddVector(-1, torch.ones(32))], "tiny-llama has no layer -1"),
        ({}, [AddVector(1, torch.ones(31))], r"vector for layer 1 has shape \(31,\); tiny-llama needs \[32\]"),
        ({1: tiny_sae("topk", 1)}, [Add(F, 1.0), Add(F, 2.0)], "two interventions act on L1/3; make them one, or nest"),
        ({1: tiny_sae("topk", 1)}, [Add(F, 1.0), Clamp(F, 2.0)], "two interventions act on L1/3"),
        ({}, [ScaleBlock(1, 0.5), ScaleBlock(1, 0.2)], "two interventions act on block 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(model, saes, changes, sentence):
    before = n_hooks(model)
    with pytest.raises(ValueError, match=sentence) as error, steered(model, saes, *changes):
        pytest.fail("the block ran")
    assert n_hooks(model) == before
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("kind", "name"), [(Add, "coefficient"), (Clamp, "value"), (Scale, "factor"), (ScaleBlock, "factor")]
)
def test_numbers_that_are_not_finite_are_refused(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a finite number"):
        kind(F if kind is not ScaleBlock else 1, value)


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="coefficient is nan"):
        AddVector(1, torch.ones(32), float("nan"))
    with pytest.raises(ValueError, match="vector for layer 1 has entries that are not finite"):
        AddVector(1, torch.tensor([1.0, float("nan")]))


def test_names_leave_nothing_out():
    rows = [Add(F, 1234567.0), Add(F, 1234568.0), Add(F, 1 / 3), Add(F, 0.333333), Add(F, 5.0), Clamp(F, 5.0)]
    rows += [Boost((F, G), 5.0), Boost((F,), 5.0), Boost((F, Feature(1, 9)), 5.0), ScaleBlock(1, 0.5), Splice(1)]
    rows += [dataclasses.replace(each, keep_norm=True) for each in rows]
    assert len({str(each) for each in rows}) == len(rows)
    assert [str(rows[n]) for n in (0, 4, 6)] == ["Add(L1/3, 1234567.0)", "Add(L1/3, 5)", "Boost(L1/3 L1/4, 5)"]
    assert str(Add(F, 5.0, keep_norm=True)) == "Add(L1/3, 5, norm kept)"


def test_two_vectors_in_one_layer_add_up(model):
    with steered(model, None, AddVector(1, torch.ones(32)), AddVector(1, torch.ones(32), 2.0)):
        both = resid_of(model, 1)
    with steered(model, None, AddVector(1, torch.ones(32), 3.0)):
        assert_close(both, resid_of(model, 1))


@pytest.mark.parametrize("when", EXPECTED, ids=lambda when: type(when).__name__)
def test_whens_are_read_back_from_their_names(when):
    names = {Everywhere(): "everywhere", Prompt(): "prompt", LastPromptToken(): "last-prompt-token"}
    steps = {Steps(1, 1): "steps:1-1", Steps(-2, -2): "steps:-2--2", Steps(-1, 0): "steps:-1-0"}
    assert parse_when({**names, Generated(): "generated", **steps}[when]) == when


@pytest.mark.parametrize("text", ["", "Prompt", "steps", "steps:", "steps:2", "steps:2-", "steps:--1-2", "steps:²-3"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match="is not a when; choose from"):
        parse_when(text)


@pytest.mark.parametrize(("first", "last"), [(3, 2), (0, -1)])
def test_steps_that_are_none_are_refused(first, last):
    with pytest.raises(ValueError, match=f"steps {first} to {last} are none"):
        Steps(first, last)


def test_a_change_that_overflows_is_refused(model, topk_saes):
    with (
        pytest.raises(ValueError, match=r"Add\(L1/3, 1e\+39\) makes a change that is not finite"),
        steered(model, topk_saes, Add(Feature(1, 3), 1e39)),
    ):
        generate(model, ["Hi"], max_new_tokens=1)
