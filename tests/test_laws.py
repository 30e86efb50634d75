"""Laws 1 to 7 and 10 of the architecture, as property tests on tiny models."""

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from conftest import tiny_model, tiny_sae
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    PAIRS,
    amounts,
    assert_close,
    doubled,
    edits,
    every_when,
    features,
    few,
    logits_of,
    n_hooks,
    same_bits,
    sides,
    temperatures,
    texts,
)

from saereason import hooks
from saereason.effects import measure
from saereason.features import Feature
from saereason.generate import generate
from saereason.metrics import LogProb, Scored
from saereason.model import pad
from saereason.prefixes import Prefixes, read_prompts
from saereason.steering import (
    Add,
    Clamp,
    Everywhere,
    Generated,
    LastPromptToken,
    Prompt,
    Scale,
    ScaleBlock,
    Steps,
    steered,
)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def subject(request):
    """A model and its SAEs."""
    family, architecture = request.param
    return tiny_model(family), {layer: tiny_sae(architecture, layer) for layer in range(4)}


@pytest.fixture(scope="module", params=[("llama", "topk"), ("gemma3", "standard")], ids="-".join)
def ending(request):
    """A model of whose tokens every ninth ends the answer, and its SAEs."""
    family, architecture = request.param
    model = tiny_model(family)
    model.hf.generation_config.eos_token_id = list(range(4, 104, 9))
    return model, {layer: tiny_sae(architecture, layer) for layer in range(4)}


@every_when
@given(prompts=texts, feature=features, side=sides)
@few(3)
def test_law_1_scaling_by_one_changes_no_bit(subject, when, prompts, feature, side):
    model, saes = subject
    rows, lengths = doubled(model, prompts)
    clean = logits_of(model, rows, lengths, side=side)
    with steered(model, saes):
        assert same_bits(clean, logits_of(model, rows, lengths, side=side))
    with steered(model, saes, Scale(feature, 1.0, when), ScaleBlock(feature.layer, 1.0, when)):
        assert same_bits(clean, logits_of(model, rows, lengths, side=side))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_law_1_holds_in_every_precision(saes, prompts, dtype):
    model = tiny_model()
    model.hf.to(dtype)
    rows = [model.encode(prompt) for prompt in prompts]
    clean = logits_of(model, rows)
    with steered(model, saes, *(Scale(Feature(layer, 5), 1.0) for layer in range(4))):
        assert same_bits(clean, logits_of(model, rows))


@given(data=st.data(), prompts=texts)
@few(3)
def test_law_2_the_model_is_as_before_after_the_block(subject, data, prompts):
    model, saes = subject
    rows, _ = doubled(model, prompts)
    before, clean, changes = n_hooks(model), logits_of(model, rows), data.draw(edits(Everywhere()))
    with steered(model, saes, *changes):
        assert n_hooks(model) > before
        logits_of(model, rows)
    assert n_hooks(model) == before
    with pytest.raises(KeyError), steered(model, saes, *changes):
        logits_of(model, rows)
        raise KeyError("the user's own")
    with pytest.raises(ValueError, match="no SAE at layer 0"), steered(model, {}, Add(Feature(0, 0), 1.0)):
        pass
    broken = hooks.Edit(2, "broken", Everywhere(), lambda at: at.resid[:, :3])
    with pytest.raises(RuntimeError), hooks.edited(model, [broken]):
        logits_of(model, rows)
    assert n_hooks(model) == before
    assert same_bits(clean, logits_of(model, rows))


def replaced(model, layer, function, rows, side):
    """Logits with the residual stream after a block replaced by a function of it, by a hook of the test's own."""

    def hook(_module, _args, output):
        return (function(output[0]), *output[1:]) if isinstance(output, tuple) else function(output)

    handle = model.blocks[layer].register_forward_hook(hook)
    try:
        return logits_of(model, rows, side=side)
    finally:
        handle.remove()


@given(prompts=texts, feature=features, one=amounts, other=amounts, side=sides)
@few(5)
def test_law_3_add_adds_and_nests_like_a_sum(subject, prompts, feature, one, other, side):
    model, saes = subject
    rows, _ = doubled(model, prompts)
    row = saes[feature.layer].W_dec[feature.index]
    by_hand = replaced(model, feature.layer, lambda resid: resid + (one + other) * row, rows, side)
    with steered(model, saes, Add(feature, one + other)):
        assert_close(logits_of(model, rows, side=side), by_hand)
    with steered(model, saes, Add(feature, one)), steered(model, saes, Add(feature, other)):
        assert_close(logits_of(model, rows, side=side), by_hand)


@given(prompts=texts, feature=features, value=amounts, side=sides)
@few(3)
def test_law_4_clamp_is_splice_plus_error(any_model, saes, prompts, feature, value, side):
    rows, _ = doubled(any_model, prompts)
    sae = saes[feature.layer]

    def spliced(resid):
        acts = sae.encode(resid)
        held = acts.clone()
        held[..., feature.index] = value
        return sae.decode(held) + (resid - sae.decode(acts))

    by_hand = replaced(any_model, feature.layer, spliced, rows, side)
    with steered(any_model, saes, Clamp(feature, value)):
        assert_close(logits_of(any_model, rows, side=side), by_hand)


@every_when
@given(data=st.data(), prompts=texts, temperature=temperatures)
@few(2)
def test_law_5_generation_with_a_cache_is_generation_without(subject, when, data, prompts, temperature):
    model, saes = subject
    options = {"max_new_tokens": 10, "temperature": temperature, "forced": [[7]] * len(prompts)}
    with steered(model, saes, *data.draw(edits(when))):
        cached = generate(model, prompts, **options)
        plain = generate(model, prompts, use_cache=False, **options)
    assert cached.tokens == plain.tokens
    assert [edit.positions for edit in cached.receipt.edits] == [edit.positions for edit in plain.receipt.edits]


@every_when
@given(data=st.data(), prompts=texts)
@few(2)
def test_law_5_a_forward_pass_in_chunks_is_one_pass(subject, when, data, prompts):
    model, saes = subject
    rows, lengths = doubled(model, prompts)
    batch, width = pad(rows, pad_token=0), max(map(len, rows))
    position = (batch.mask.long().cumsum(-1) - 1).clamp(min=0)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, width - 1), max_size=4))), width]
    found, cache = [], None
    with steered(model, saes, *data.draw(edits(when))), hooks.prompts(torch.tensor(lengths)), torch.no_grad():
        whole = hooks.run(model, batch, use_cache=False).logits
        for start, end in pairwise(cuts):
            out = model.hf(
                input_ids=batch.tokens[:, start:end],
                attention_mask=batch.mask[:, :end].long(),
                position_ids=position[:, start:end],
                past_key_values=cache,
                use_cache=True,
            )
            found.append(out.logits)
            cache = out.past_key_values
    assert_close([torch.cat(found, 1)[batch.mask]], [whole[batch.mask]])


@every_when
@given(data=st.data(), prompts=texts, temperature=temperatures)
@few(2)
def test_law_5_prompts_that_were_kept_change_nothing(ending, when, data, prompts, temperature):
    model, saes = ending
    options, prefixes = {"max_new_tokens": 6, "temperature": temperature}, Prefixes()
    generate(model, prompts, prefixes=prefixes, **options)
    with steered(model, saes, *data.draw(edits(when))):
        plain = generate(model, prompts, **options)
        first, again = (generate(model, prompts, prefixes=prefixes, **options) for _ in range(2))
    for kept in (first, again):
        assert (kept.tokens, kept.receipt.firings) == (plain.tokens, plain.receipt.firings)
    clean = [generate(model, prompts, prefixes=each, **options).tokens for each in (prefixes, None)]
    assert clean[0] == clean[1]


@every_when
@given(data=st.data(), prompts=texts, temperature=temperatures)
@few(2)
def test_law_5_what_prompts_begin_with_alike_may_be_read_once(ending, when, data, prompts, temperature):
    model, saes = ending
    options = {"max_new_tokens": 6, "temperature": temperature}
    prompts = [f"Tom has 3 a{prompt}" for prompt in prompts]
    with steered(model, saes, *data.draw(edits(when))):
        found = []
        for worth in (1, 10**9):
            with patch("saereason.prefixes.WORTH", worth):
                found.append(generate(model, prompts, **options))
    once, plain = found
    assert (once.tokens, once.receipt.firings) == (plain.tokens, plain.receipt.firings)


def test_prompts_are_kept_only_where_no_edit_visits_them(model, prompts):
    batch = pad([model.encode(prompt) for prompt in prompts], pad_token=0)
    visiting, sparing = [Everywhere(), Prompt(), Steps(-2, 1)], [LastPromptToken(), Generated(), Steps(-1, 1)]
    for when, kept in [*((when, False) for when in visiting), *((when, True) for when in sparing)]:
        with hooks.edited(model, [hooks.Edit(1, "any", when, lambda at: at.resid)]):
            assert hooks.spare(batch) is kept
            prefixes = Prefixes()
            cache = prefixes.of(model, batch)
            assert (cache is not None) is kept
        if kept:
            assert cache.get_seq_length() == batch.tokens.shape[1] - 1
            assert prefixes.of(model, batch) is not prefixes.of(model, batch)  # each caller fills one of its own
    assert Prefixes().of(model, pad([[5], [6, 7]], pad_token=0)) is None


def test_what_prompts_begin_with_is_read_once_where_nothing_visits_it(any_model, monkeypatch):
    rows = [any_model.encode(f"Tom has 3 {rest}") for rest in ("", "abcdefgh", "xy", "x")]
    batch, lengths = pad(rows, pad_token=0), torch.tensor([*map(len, rows)])
    monkeypatch.setattr("saereason.prefixes.WORTH", 1)
    shapes, run = [], hooks.run
    monkeypatch.setattr(hooks, "run", lambda m, b, *a, **k: shapes.append(tuple(b.tokens.shape)) or run(m, b, *a, **k))
    whole = run(any_model, batch, use_cache=True, logits_to_keep=1)
    keeps = any_model.hf.config.model_type != "gemma3_text"  # sliding windows are read row by row
    alike = len(rows[0]) - 1
    cases = [(None, True), (LastPromptToken(), True), (Everywhere(), False), (Prompt(), False)]
    for when, once in cases:
        shapes.clear()
        edits = [] if when is None else [hooks.Edit(1, "any", when, lambda at: torch.zeros_like(at.resid))]
        with torch.no_grad(), hooks.edited(any_model, edits):
            scores, cache = read_prompts(any_model, batch, lengths)
        assert shapes[:-1] == ([(1, alike)] if once and keeps else [])
        assert_close([scores], [whole.logits[:, -1]])
        for found, expected in zip(cache.layers, whole.past_key_values.layers, strict=True):
            for name in ("keys", "values"):
                pair = [getattr(one, name).transpose(1, 2) for one in (found, expected)]
                assert_close(*([each[batch.mask[:, -each.shape[1] :]]] for each in pair))
    shapes.clear()
    with hooks.reading(any_model, [1]):
        read_prompts(any_model, batch, lengths)
    assert shapes == [tuple(batch.tokens.shape)], "what others hook on the model sees the rows as they are"


@every_when
@given(data=st.data(), prompts=texts, side=sides)
@few(3)
def test_law_6_a_padded_batch_is_its_rows_one_by_one(subject, when, data, prompts, side):
    model, saes = subject
    rows, lengths = doubled(model, prompts)
    with steered(model, saes, *data.draw(edits(when))):
        together = logits_of(model, rows, lengths, side=side)
        alone = [logits_of(model, [row], [n])[0] for row, n in zip(rows, lengths, strict=True)]
    assert_close(together, alone)


@every_when
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@given(data=st.data(), prompts=texts, temperature=temperatures, size=st.integers(2, 4))
@few(2)
def test_law_6_rows_that_end_early_are_left_alone(ending, when, use_cache, data, prompts, temperature, size):
    model, saes = ending
    options = {"max_new_tokens": 10, "temperature": temperature, "use_cache": use_cache, "stop": ["e", "t", "?"]}
    options["forced"] = [[7]] * len(prompts)
    with steered(model, saes, *data.draw(edits(when))):
        together = generate(model, prompts, batch_size=size, **options)
        alone = generate(model, prompts, batch_size=1, **options)
    assert (together.tokens, together.texts, together.finished) == (alone.tokens, alone.texts, alone.finished)
    for a, b in zip(together.receipt.edits, alone.receipt.edits, strict=True):
        assert (a.name, a.firings, a.positions) == (b.name, b.firings, b.positions)
        assert a.relative_size == pytest.approx(b.relative_size, rel=1e-3, abs=1e-6)


def test_law_7_a_sample_depends_on_its_seed_and_place_alone(any_model, prompts):
    def sample(prompts, **options):
        return generate(any_model, prompts, max_new_tokens=12, temperature=1.0, **options).tokens

    first = sample(prompts, seed=3)
    for batch_size in (1, 3, 32):
        assert sample(prompts, seed=3, batch_size=batch_size) == first
    assert all(a != b for a, b in zip(first, sample(prompts, seed=4), strict=True))
    others = ["Something else altogether, and rather longer.", *prompts[1:3], "x"]
    assert sample(others, seed=3)[1:3] == first[1:3]
    assert len(set(sample(["Hi"] * 4, seed=3))) == 4


def test_law_7_sampling_leaves_the_global_generator_alone(model, prompts):
    before = torch.get_rng_state()
    generate(model, prompts, max_new_tokens=3, temperature=1.0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("when", [Everywhere(), LastPromptToken(), Generated()], ids=lambda when: type(when).__name__)
def test_law_10_the_gradient_estimates_a_small_add(subject, layer, when):
    model, saes = subject
    prompt, rest = model.encode("Tom has 3 apples."), model.encode("So he")
    metric = LogProb((Scored(tuple(prompt), tuple(rest), (True,) * len(rest)),))
    nothing = torch.zeros(32, requires_grad=True)
    added = hooks.Edit(layer, "nothing", when, lambda at: nothing.expand_as(at.resid))
    with hooks.edited(model, [added]), hooks.prompts(torch.tensor([len(prompt)])):
        logits = hooks.run(model, pad([prompt + rest], pad_token=0), use_cache=False).logits
    scores = logits[0, -len(rest) - 1 : -1].log_softmax(-1)
    scores.gather(-1, torch.tensor(rest)[:, None]).mean().backward()
    slopes = saes[layer].W_dec @ nothing.grad
    strongest = Feature(layer, int(slopes.abs().argmax()))
    more, less = measure(model, saes, metric, [Add(strongest, c, when) for c in (0.02, -0.02)])
    measured = (more.delta - less.delta).item() / 0.04
    assert measured == pytest.approx(slopes[strongest.index].item(), rel=0.03)
