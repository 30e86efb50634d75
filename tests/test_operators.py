"""The published operators against their formulas, conditions, and rows of one batch, each steered in its own way."""

import dataclasses

import pytest
import torch
from conftest import tiny_model, tiny_sae
from strategies import assert_close, logits_of, same_bits
from test_steering import LENGTHS, ROWS, F, resid_of

import saereason as sr
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
    Decay,
    Everywhere,
    Generated,
    LastPromptToken,
    MeanBlock,
    OnRows,
    Patch,
    Prompt,
    Scale,
    ScaleBlock,
    ScaleProjection,
    SetProjection,
    Splice,
    Steps,
    While,
    WhileAlong,
    mean_contributions,
    parse_when,
    per_row,
    steered,
)

V = torch.linspace(-1, 2, 32)
BOOSTED = (F, Feature(1, 9), Feature(1, 60))
ARCHITECTURES = ["standard", "jumprelu", "topk"]


def normalising(architecture, kind):
    """An SAE that normalises its input."""
    sae = tiny_sae(architecture, 1)
    sae.cfg.normalize_activations = kind
    sae._setup_activation_normalization()
    return sae


def activation(sae, pre_acts):
    """The SAE's nonlinearity, written once more."""
    acts = pre_acts.relu()
    if sae.cfg.architecture() == "jumprelu":
        return acts * (pre_acts > sae.threshold)
    if sae.cfg.architecture() == "topk":
        least = pre_acts.topk(sae.cfg.k, dim=-1).values[..., -1:]
        return acts * (pre_acts >= least)
    return acts


def boosted(sae, resid, alpha):
    index = [feature.index for feature in BOOSTED]
    pre_acts = (resid - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc + sae.b_enc
    raised = pre_acts.clone()
    raised[:, index] += alpha * pre_acts[:, index].abs().mean(-1, keepdim=True)
    return resid + (activation(sae, raised) - activation(sae, pre_acts)) @ sae.W_dec


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_operator_does_its_sum(any_model, architecture):
    sae = tiny_sae(architecture, 1)
    unit, row = V / V.norm(), decoder_row(sae, 3) / decoder_row(sae, 3).norm()
    before, clean = (torch.cat(resid_of(any_model, layer)) for layer in (0, 1))
    for intervention, expected in (
        (SetProjection(F, 4.0), clean - (clean @ row)[:, None] * row + 4.0 * row),
        (ScaleProjection(1, V, -1.0), clean - (clean @ unit)[:, None] * unit),
        (ScaleProjection(1, V, 0.5), clean + 0.5 * (clean @ unit)[:, None] * unit),
        (Boost(BOOSTED, 15.0), boosted(sae, clean, 15.0)),
        (MeanBlock(1, V), before + V),
        (Splice(1), sae.decode(sae.encode(clean))),
        (Splice(1, keep_error=True), clean),
    ):
        with steered(any_model, {1: sae}, intervention):
            found = torch.cat(resid_of(any_model, 1))
        assert_close([found], [expected])


def test_boosting_one_feature_of_a_relu_sae_is_adding_to_its_pre_activation():
    model, sae = tiny_model(), tiny_sae("standard", 1)
    clean = torch.cat(resid_of(model, 1))
    pre = clean @ sae.W_enc[:, 3] + sae.b_enc[3] - (sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc[:, 3]
    with steered(model, {1: sae}, Boost((F,), 3.0)):
        found = torch.cat(resid_of(model, 1))
    more = (pre + 3.0 * pre.abs()).relu() - pre.relu()
    assert_close([found], [clean + more[:, None] * decoder_row(sae, 3)])


@pytest.mark.parametrize(
    "intervention",
    [Add(F, 9.0), Clamp(F, 9.0), Scale(F, 9.0), SetProjection(F, 9.0), Boost(BOOSTED, 20.0), AddVector(1, V, 3.0),
     ScaleProjection(1, V, 2.0), ScaleBlock(1, 0.3), MeanBlock(1, V), Patch(1, (torch.ones(6, 32),)), Splice(1)],
    ids=lambda intervention: type(intervention).__name__,
)  # fmt: skip
def test_any_of_them_may_keep_the_norm(model, saes, intervention):
    clean = torch.cat(resid_of(model, 1))
    with steered(model, saes, intervention):
        free = torch.cat(resid_of(model, 1))
    with steered(model, saes, dataclasses.replace(intervention, keep_norm=True)):
        kept = torch.cat(resid_of(model, 1))
    assert_close([kept], [free * clean.norm(dim=-1, keepdim=True) / free.norm(dim=-1, keepdim=True)])


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saes_that_normalise_their_input_are_steered_in_their_own_units(model, architecture, kind):
    sae = normalising(architecture, kind)
    clean = torch.cat(resid_of(model, 1))
    acts = sae.encode(clean)
    back = sae.decode(acts.clone())
    index = int(acts.sum(0).argmax())
    held, more = acts.clone(), acts.clone()
    held[:, index], more[:, index] = 2.0, acts[:, index] + 5.0
    for intervention, wanted in ((Clamp(Feature(1, index), 2.0), held), (Add(Feature(1, index), 5.0), more)):
        sae.encode(clean)  # which is where SAELens keeps each token's scale for the decoder
        expected = sae.decode(wanted) + (clean - back)
        with steered(model, {1: sae}, intervention):
            torch.testing.assert_close(torch.cat(resid_of(model, 1)), expected, atol=2e-3, rtol=1e-4)
    with pytest.raises(ValueError, match=rf"normalises its input \({kind}\)"):
        sr.output_slopes(model, {1: sae}, ["Hi"], ["a"])


def test_a_patch_from_another_run_makes_it_that_run(any_model):
    mine, other = [20, 21, 22, 23], [40, 41, 42, 43]
    with steered(any_model, None, Patch.of(any_model, 2, [other])):
        patched = logits_of(any_model, [mine])
    assert_close(patched, logits_of(any_model, [other]))
    with steered(any_model, None, Patch.of(any_model, 2, [mine, other])):
        assert_close(logits_of(any_model, [other, mine]), logits_of(any_model, [mine, other]))
    with steered(any_model, None, Patch.of(any_model, 1, [mine])):
        assert_close(logits_of(any_model, [mine]), logits_of(any_model, [mine]))
    with (
        pytest.raises(ValueError, match="wanted in row 0 at position 4 and its source has 4 positions"),
        steered(any_model, None, Patch.of(any_model, 2, [other])),
    ):
        logits_of(any_model, [[*mine, 24]])


def test_the_mean_of_a_contribution_leaves_out_first_tokens_and_padding(any_model):
    texts = ["Tom has 3 apples.", "Hi", "How many birds?"]
    rows = [any_model.encode(text) for text in texts]
    added = []
    for row in rows:
        resid = hooks.read(any_model, pad([row], pad_token=0), [0, 1])
        added.append((resid[1] - resid[0])[0, 1:])
    assert_close([mean_contributions(any_model, texts, [1], batch_size=2)[1]], [torch.cat(added).mean(0)])


def test_a_size_may_decay(model, saes):
    plain, waning = Add(F, 8.0, Generated()), Add(F, 8.0, Decay(0.5, when=Generated()))
    clean = resid_of(model, 1)
    with steered(model, saes, plain):
        full = resid_of(model, 1)
    with steered(model, saes, waning):
        found = resid_of(model, 1)
    for one, all_, less, length in zip(clean, full, found, LENGTHS, strict=True):
        share = torch.tensor([0.0] * length + [0.5**n for n in range(len(one) - length)])[:, None]
        assert_close([less], [one + share * (all_ - one)])
    with pytest.raises(ValueError, match=r"rate is 1\.5"):
        Decay(1.5)


def changed(model, saes, intervention):
    """Positions of each row that an intervention changes after layer 1."""
    clean = resid_of(model, 1)
    with steered(model, saes, intervention) as steering:
        edited = resid_of(model, 1)
    return [
        set((b - a).abs().sum(-1).nonzero()[:, 0].tolist()) for a, b in zip(clean, edited, strict=True)
    ], steering.receipt.firings


def test_after_is_from_the_token_that_completes_what_was_said(model, saes):
    assert ROWS[0][3:] == [23, 24, 25]
    said = model.decode([23, 24])
    for after in (After((23, 24)), After(said)):
        assert changed(model, saes, Add(F, 3.0, after)) == ([{4, 5}, set(), set()], 2)
    assert changed(model, saes, Add(F, 3.0, After((22, 23)))) == ([set()] * 3, 0)  # begins in the prompt
    assert changed(model, saes, Add(F, 3.0, After((31,)))) == ([set(), {1, 2}, set()], 2)
    with pytest.raises(ValueError, match="nothing to come after"):
        After("")


@pytest.mark.parametrize("use_cache", [True, False])
def test_after_a_text_in_generation(any_model, saes, prompts, use_cache):
    clean = generate(any_model, prompts, max_new_tokens=12)
    said = clean.texts[0][2:4]
    with steered(any_model, saes, Add(F, 0.0, After(said))):
        wrote = generate(any_model, prompts, max_new_tokens=12, use_cache=use_cache)
    expected = []
    for prompt, tokens, finished in zip(prompts, wrote.tokens, wrote.finished, strict=True):
        said_at = [n for n in range(len(tokens)) if said in any_model.decode(tokens[: n + 1])]
        start = len(any_model.encode(prompt))
        expected += range(start + said_at[0], start + len(tokens) - (not finished)) if said_at else []
    assert wrote.receipt.edits[0].positions == tuple(sorted(set(expected))) != ()
    assert wrote.receipt.firings == len(expected) or not use_cache


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_condition_on_a_feature_is_read_where_it_acts(any_model, architecture):
    saes = {layer: tiny_sae(architecture, layer) for layer in (0, 1)}
    for layer in (0, 1):
        rows = resid_of(any_model, layer)
        index = int((saes[layer].encode(torch.cat(rows)) > 0).float().var(0).argmax())
        acts = [feature_acts(saes[layer], each, index) for each in rows]
        above = float(torch.cat(acts).median())
        expected = [set((each > above).nonzero()[:, 0].tolist()) for each in acts]
        condition = While(Feature(layer, index), above)
        found, firings = changed(any_model, saes, Add(F, 3.0, condition))
        assert found == expected and firings == sum(map(len, expected)) > 0
    with (
        pytest.raises(ValueError, match="acts after block 0 and waits for what block 1 gives"),
        steered(any_model, saes, Add(Feature(0, 3), 1.0, While(Feature(1, 5)))),
    ):
        pass


def test_a_condition_may_be_a_probe_and_may_never_be_met(model, saes):
    resid = resid_of(model, 0)
    above = float(torch.cat(resid)[:, 0].median())
    probe = WhileAlong(0, torch.eye(32)[0], above)
    found, _ = changed(model, saes, Add(F, 3.0, probe))
    assert found == [set((each[:, 0] > above).nonzero()[:, 0].tolist()) for each in resid]
    assert changed(model, saes, Add(F, 3.0, WhileAlong(0, torch.eye(32)[0], 1e9))) == ([set()] * 3, 0)
    narrowed, _ = changed(model, saes, Add(F, 3.0, WhileAlong(0, torch.eye(32)[0], above, when=Prompt())))
    assert narrowed == [{n for n in row if n < length} for row, length in zip(found, LENGTHS, strict=True)]


def test_an_edit_may_be_allowed_to_be_silent(model, saes):
    never = Add(F, 3.0, Steps(90, 91))
    with pytest.raises(sr.SilentEditError), steered(model, saes, never):
        resid_of(model, 1)
    with steered(model, saes, never, may_be_silent=True):
        resid_of(model, 1)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("when", [Everywhere(), LastPromptToken(), Generated()], ids=lambda when: type(when).__name__)
def test_rows_of_one_batch_are_steered_each_its_own_way_as_one_by_one(any_model, topk_saes, when, batch_size):
    arms = [
        [],
        [Add(F, 9.0, when)],
        [Clamp(F, 20.0, when), Scale(Feature(2, 8), -3.0, when)],
        [AddVector(0, V, 2.0, when)],
        [Boost(BOOSTED, 30.0, when)],
    ]
    prompts = ["Tom has 3 apples.", "Hi", "2 + 2 =", "How many birds are left?", "Hi"]
    any_model.hf.generation_config.eos_token_id = [2, 5, 9]
    alone = []
    for prompt, arm in zip(prompts, arms, strict=True):
        with steered(any_model, topk_saes, *arm):
            alone.append(generate(any_model, [prompt], max_new_tokens=12).tokens[0])
    with steered(any_model, topk_saes, *per_row(*arms)) as steering:
        together = generate(any_model, prompts, max_new_tokens=12, batch_size=batch_size)
    any_model.hf.generation_config.eos_token_id = 2
    assert list(together.tokens) == alone
    assert len(set(alone)) > 3
    assert all(edit.firings > 0 for edit in steering.receipt.edits)


def test_two_interventions_may_act_on_one_feature_in_different_rows_only(model, saes):
    with steered(model, saes, *per_row([Add(F, 1.0)], [Add(F, 2.0)], [])):
        resid_of(model, 1)
    one, other = Add(F, 1.0, OnRows((0, 1))), Add(F, 2.0, OnRows((1, 2)))
    with pytest.raises(ValueError, match="two interventions act on L1/3"), steered(model, saes, one, other):
        pass
    both = OnRows((0, 1), when=OnRows((1, 2), when=Prompt()))
    assert changed(model, saes, Add(F, 3.0, both))[0] == [set(), {0}, set()]


def test_a_clean_row_of_a_steered_batch_is_clean_to_the_bit(model, saes):
    clean = logits_of(model, ROWS, LENGTHS)
    with steered(model, saes, *per_row([], [Add(F, 9.0)], [Clamp(F, 2.0)])):
        mixed = logits_of(model, ROWS, LENGTHS)
    assert same_bits(clean[:1], mixed[:1]) and not same_bits(clean[1:], mixed[1:])


def test_whens_are_read_from_text():
    assert parse_when("after:Wait, no") == After("Wait, no")
    with pytest.raises(ValueError, match="nothing to come after"):
        parse_when("after:")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Boost((), 1.0), "the features to boost are none; give at least one, all of one layer"),
        (lambda: Boost((F, Feature(2, 1)), 1.0), "give at least one, all of one layer"),
        (lambda: Boost((F, F), 1.0), "give each once"),
        (lambda: Boost((F,), float("nan")), "alpha is nan"),
        (lambda: SetProjection(F, float("inf")), "value is inf"),
        (lambda: ScaleProjection(1, torch.zeros(32), 1.0), "is zero; it has no direction"),
        (lambda: MeanBlock(1, torch.full((32,), float("nan"))), "not finite numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("intervention", "sentence"),
    [
        (ScaleProjection(1, torch.ones(5), 1.0), r"has shape \(5,\); tiny-llama needs \[32\]"),
        (MeanBlock(1, torch.ones(5)), r"has shape \(5,\)"),
        (Patch(1, ()), "there is nothing to patch in at layer 1"),
        (Patch(1, (torch.ones(3, 5),)), r"has shape \(5,\)"),
        (Splice(7), "has no layer 7"),
        (Boost((Feature(1, 96),), 1.0), "L1/96 is out of range"),
        (Add(F, 1.0, While(Feature(1, 96))), "L1/96 is out of range"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(model, saes, intervention, sentence):
    with pytest.raises(ValueError, match=sentence), steered(model, saes, intervention):
        pass


def test_a_splice_needs_an_sae(model, saes):
    with (
        pytest.raises(ValueError, match="no SAE at layer 2; there are SAEs at layers"),
        steered(model, {1: saes[1]}, Splice(2)),
    ):
        pass


@pytest.mark.parametrize("when", [Everywhere(), Decay(0.5), Decay(0.9, when=Generated())], ids=str)
def test_the_norm_is_kept_whatever_the_share(model, saes, when):
    for edit in (Add(F, 5.0, when, keep_norm=True), Clamp(F, 8.0, when, keep_norm=True)):
        clean = resid_of(model, 1)
        with steered(model, saes, edit):
            moved = resid_of(model, 1)
        for a, b in zip(clean, moved, strict=True):
            torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1), rtol=1e-5, atol=1e-5)
        assert max((a - b).abs().max() for a, b in zip(clean, moved, strict=True)) > 0.01


def test_two_that_act_on_one_thing_are_refused_unless_in_different_rows(model, saes):
    turned = ScaleProjection(1, -3 * V, 0.5)
    for pair, target in (
        ((Boost((F, Feature(1, 9)), 15.0), Clamp(F, 0.0)), "L1/3"),
        ((Boost((F,), 15.0), Boost((Feature(1, 9),), 2.0)), "features of layer 1 by Boost"),
        ((ScaleProjection(1, V, -1.0), turned), "one direction at layer 1"),
        ((Add(F, 5.0, keep_norm=True), AddVector(1, V, keep_norm=True)), r"the norm after layer 1 \(keep_norm\)"),
    ):
        with pytest.raises(ValueError, match=f"two interventions act on {target}"), steered(model, saes, *pair):
            pytest.fail("the block ran")
        with steered(model, saes, *per_row([pair[0]], [pair[1]]), may_be_silent=True):
            pass
    others = (ScaleProjection(2, V, -1.0), ScaleProjection(1, V.flip(0), -1.0), Clamp(Feature(1, 8), 0.0))
    with steered(model, saes, turned, *others, Boost((F,), 1.0), Add(Feature(2, 3), 1.0, keep_norm=True)):
        resid_of(model, 3)


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: While(F, NAN), "above is nan; it must be a finite number"),
        (lambda: While(F, -float("inf")), "above is -inf; it must be a finite number"),
        (lambda: WhileAlong(1, V, NAN), "above is nan; it must be a finite number"),
        (lambda: WhileAlong(1, V * NAN), "vector for layer 1 has entries that are not finite"),
    ],
)
def test_a_condition_that_can_never_be_told_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Add(F, 5.0, WhileAlong(1, torch.ones(7))), r"vector for layer 1 has shape \(7,\)"),
        (Add(F, 5.0, Decay(0.5, when=WhileAlong(0, torch.ones(7)))), r"vector for layer 0 has shape \(7,\)"),
        (Patch(1, (torch.ones(3, 32), torch.ones(0, 32))), "source 1 of the patch at layer 1 has no positions"),
        (Add(F, 5.0, After((5, 104))), "there is no token 104"),
        (Add(F, 5.0, After("a<|unk|>")), "has the special token <|unk|> in it, which no text shows; give token ids"),
    ],
)
def test_what_would_fail_or_be_silent_while_it_runs_is_refused_before(model, saes, edit, sentence):
    with pytest.raises(ValueError, match=sentence), steered(model, saes, edit):
        pytest.fail("the block ran")


def test_after_a_special_token_by_its_name(model, saes):
    unknown, start = model.tokenizer.convert_tokens_to_ids("<|unk|>"), len(model.encode("Hi"))
    for said in ("<|unk|>", (unknown,)):
        with steered(model, saes, Add(F, 5.0, After(said))) as steering:
            generate(model, ["Hi"], max_new_tokens=2, forced=[[10, unknown, 11]])
        assert steering.receipt.edits[0].positions[:2] == (start + 1, start + 2)


@pytest.mark.parametrize("prompts", [["Hi there"], ["Hi there", "2 + 2 ="]])
def test_beams_have_no_history_so_after_says_so(model, saes, prompts):
    batch = pad([model.encode(prompt) for prompt in prompts], pad_token=0)
    options = {"attention_mask": batch.mask.long(), "max_new_tokens": 8, "do_sample": False}
    edit = Add(F, 5.0, After((6,)))
    with pytest.raises(ValueError, match="cannot tell what was written before"), steered(model, saes, edit):
        model.hf.generate(batch.tokens, num_beams=3, **options)
    with steered(model, saes, edit):
        model.hf.generate(batch.tokens, **options)
    with steered(model, saes, edit):  # rows that are alike are known here
        generate(model, prompts * 2, max_new_tokens=4)
