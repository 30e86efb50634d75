"""Where the clock says that tokens are, and what `read` reads."""

from contextlib import contextmanager
from threading import Barrier, Thread

import pytest
import torch
from conftest import tiny_model
from strategies import assert_close, n_hooks

from saereason import hooks
from saereason.loading import load_model, random_copy
from saereason.model import Model, pad

LENGTHS = [5, 1, 9]


@contextmanager
def watched(model):
    """The positions of every forward pass in the block."""
    seen = []

    def where(at):
        seen.append(at)
        return torch.zeros_like(at.valid)

    with hooks.edited(model, [hooks.Edit(0, "watch", where, lambda at: at.resid)]), torch.no_grad():
        yield seen


def rows_of(lengths):
    return [[10 + n + i for i in range(length)] for n, length in enumerate(lengths)]


def counted(at, values):
    """One list a row, without the padding."""
    return [row[valid].tolist() for row, valid in zip(values, at.valid, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_count_from_the_first_token_that_is_not_padding(any_model, side):
    batch = pad(rows_of(LENGTHS), pad_token=0, side=side)
    with watched(any_model) as seen:
        hooks.run(any_model, batch)
    assert torch.equal(seen[0].valid, batch.mask)
    assert counted(seen[0], seen[0].position) == [list(range(n)) for n in LENGTHS]
    assert counted(seen[0], seen[0].step) == [list(range(-n, 0)) for n in LENGTHS]


@pytest.mark.parametrize("side", ["left", "right"])
def test_declared_prompts_make_the_rest_of_a_row_generated(model, side):
    batch = pad(rows_of(LENGTHS), pad_token=0, side=side)
    with watched(model) as seen, hooks.prompts(torch.tensor([2, 1, 4])):
        hooks.run(model, batch)
    assert counted(seen[0], seen[0].step) == [[-2, -1, 0, 1, 2], [-1], [-4, -3, -2, -1, 0, 1, 2, 3, 4]]


def test_generation_with_a_cache_goes_on_where_the_last_pass_ended(any_model):
    batch = pad(rows_of(LENGTHS), pad_token=0)
    with watched(any_model) as seen:
        for _ in range(2):
            any_model.hf.generate(
                batch.tokens, attention_mask=batch.mask.long(), max_new_tokens=20, do_sample=False, eos_token_id=None
            )
    assert len(seen) == 40
    for start in (0, 20):
        assert counted(seen[start], seen[start].step) == [list(range(-n, 0)) for n in LENGTHS]
        for step, at in enumerate(seen[start + 1 : start + 20]):
            assert at.step.tolist() == [[step]] * 3
            assert at.position.tolist() == [[n + step] for n in LENGTHS]


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_are_rows(model, use_cache):
    batch = pad(rows_of([5, 3]), pad_token=0)
    options = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False, "use_cache": use_cache, "eos_token_id": None}
    with watched(model) as seen:
        model.hf.generate(batch.tokens, attention_mask=batch.mask.long(), **options)
    assert [len(at.valid) for at in seen] == [6] * 8
    assert seen[3].position[:, -1].tolist() == [7, 7, 7, 5, 5, 5]
    if use_cache:
        assert seen[3].step.tolist() == [[2]] * 6
    else:
        assert all(at.prompt_length is None for at in seen[1:])


def test_a_pass_of_embeddings_has_positions(model):
    embeddings = model.hf.get_input_embeddings()(torch.tensor(rows_of([6])))
    with watched(model) as seen:
        model.hf(inputs_embeds=embeddings)
    assert seen[0].step.tolist() == [[-6, -5, -4, -3, -2, -1]]


def test_passes_without_a_cache_that_do_not_grow_are_prompts(model):
    first, second = torch.tensor(rows_of([6])), torch.tensor([[50, 51, 52, 53, 54, 55, 56]])
    with watched(model) as seen:
        for tokens in (first, second, first, first):
            model.hf(tokens)
    assert [at.prompt_length.tolist() for at in seen] == [[6], [7], [6], [6]]


def test_a_pass_that_grows_without_a_cache_has_positions_but_no_steps(model):
    tokens = torch.tensor(rows_of([6]))
    with watched(model) as seen:
        model.hf(tokens[:, :5], use_cache=False)
        model.hf(tokens, use_cache=False)
    assert seen[1].position.tolist() == [[0, 1, 2, 3, 4, 5]]
    with pytest.raises(ValueError, match=r"cannot tell where the prompt ends.*generate, or.*hooks\.prompts"):
        _ = seen[1].step


def cached(model, tokens):
    with torch.no_grad():
        return model.hf(tokens, use_cache=True).past_key_values


@pytest.mark.parametrize("before", [[], [5], [7]], ids=["first pass", "of 5", "of 7"])
def test_a_cache_filled_elsewhere_has_positions_but_no_steps(model, before):
    cache = cached(model, torch.tensor(rows_of([6])))
    with watched(model) as seen:
        for length in before:
            model.hf(torch.tensor(rows_of([length])))
        model.hf(torch.tensor([[3]]), past_key_values=cache)
    assert seen[-1].position.tolist() == [[6]]
    with pytest.raises(ValueError, match="cannot tell where the prompt ends"):
        _ = seen[-1].step


def test_several_tokens_on_a_cache_may_be_prompt_or_answer_so_they_have_no_steps(model):
    tokens = torch.tensor(rows_of([9]))
    with watched(model) as seen:
        cache = model.hf(tokens[:, :4], use_cache=True).past_key_values
        model.hf(tokens[:, 4:8], past_key_values=cache)
        model.hf(tokens[:, 8:], past_key_values=cache)
    assert [at.position.tolist() for at in seen] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8]]]
    for at in seen[1:]:
        with pytest.raises(ValueError, match="cannot tell where the prompt ends"):
            _ = at.step


def test_declared_prompts_must_fit_the_batch(model):
    refused = pytest.raises(ValueError, match="2 prompt lengths were declared for a batch of 3 rows")
    with watched(model), hooks.prompts(torch.tensor([3, 3])), refused:
        hooks.run(model, pad(rows_of(LENGTHS), pad_token=0))
    with watched(model) as seen:
        hooks.run(model, pad(rows_of(LENGTHS), pad_token=0))
    assert seen[0].prompt_length.tolist() == LENGTHS


def test_a_mask_that_does_not_cover_the_cache_is_refused(model):
    cache = cached(model, torch.tensor(rows_of([6])))
    with watched(model), pytest.raises(ValueError, match=r"mask is \(1, 1\) and the pass reaches token 7 in 1 rows"):
        model.hf(torch.tensor([[3]]), past_key_values=cache, attention_mask=torch.ones(1, 1))


def test_a_block_run_by_itself_has_no_positions(model):
    resid = torch.zeros(1, 2, 32)
    with watched(model), pytest.raises(RuntimeError, match="outside the model's forward pass"):
        model.blocks[0](resid, position_embeddings=(torch.ones(1, 2, 8), torch.zeros(1, 2, 8)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_read_gives_the_output_of_each_block(any_model, side):
    batch = pad(rows_of([5, 1, 30]), pad_token=0, side=side)
    with torch.no_grad():
        inputs = hooks.run(any_model, batch, output_hidden_states=True).hidden_states
    resid = hooks.read(any_model, batch, [2, 0, 1, 2])
    assert list(resid) == [2, 0, 1]
    for layer in (0, 1, 2):
        assert torch.equal(resid[layer][batch.mask], inputs[layer + 1][batch.mask])
    some = batch.mask & (batch.tokens % 2 == 0)
    assert all(
        torch.equal(each, resid[layer][some]) for layer, each in hooks.read(any_model, batch, [0, 2], some).items()
    )
    last = hooks.read(any_model, batch, [3], batch.mask)[3]
    with torch.no_grad():
        assert_close([any_model.hf.base_model.norm(last)], [inputs[-1][batch.mask]])


def test_read_stops_after_the_last_layer_asked_for_and_leaves_no_hook(model):
    ran, before = [], n_hooks(model)
    handles = [block.register_forward_pre_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(model.blocks)]
    hooks.read(model, pad(rows_of([4]), pad_token=0), [1])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    assert n_hooks(model) == before


def test_read_sees_the_edits_in_force(model):
    batch = pad(rows_of([4]), pad_token=0)
    clean = hooks.read(model, batch, [1])[1]
    edit = hooks.Edit(1, "one", lambda at: at.position == 2, lambda at: torch.ones_like(at.resid))
    with hooks.edited(model, [edit]):
        changed = hooks.read(model, batch, [1])[1]
    assert (changed - clean).abs().sum(-1).ne(0).tolist() == [[False, False, True, False]]


def test_read_refuses_a_layer_that_is_not_there(model):
    batch = pad(rows_of([4]), pad_token=0)
    assert hooks.read(model, batch, []) == {}
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=rf"tiny-llama has no layer {layer}; its layers are 0 to 3"):
            hooks.read(model, batch, [0, layer])


def test_two_threads_with_two_models_do_not_disturb_each_other(model):
    other, barrier, found = tiny_model("qwen2"), Barrier(2), {}

    def work(each, lengths):
        barrier.wait()
        batch = pad(rows_of(lengths), pad_token=0)
        with watched(each) as seen, hooks.prompts(torch.tensor(lengths) - 1):
            for _ in range(20):
                hooks.run(each, batch)
        found[each.name] = [counted(at, at.step) for at in seen]

    threads = [Thread(target=work, args=args) for args in ((model, [3, 5]), (other, [7, 2, 4]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[model.name] == [[list(range(1 - n, 1)) for n in (3, 5)]] * 20
    assert found[other.name] == [[list(range(1 - n, 1)) for n in (7, 2, 4)]] * 20


def bf16(model):
    copy = random_copy(model)
    copy.hf.to(torch.bfloat16)
    return copy


def nudge(layer):
    """An edit of some positions, the last row's first among them."""
    return hooks.Edit(layer, "nudge", lambda at: at.position % 3 == 0, lambda at: at.resid.flip(-1) + at.before)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_a_resumed_pass_has_the_bits_of_the_full_one(any_model, side, precision):
    model, before = bf16(any_model) if precision == "bfloat16" else any_model, n_hooks(any_model)
    batch = pad(rows_of([5, 1, 30]), pad_token=0, side=side)
    for layer in range(4):
        with hooks.edited(model, [nudge(layer)]):
            full = hooks.run(model, batch, use_cache=False).logits
            resid = hooks.read(model, batch, [layer])[layer]
        with hooks.resumed(model, layer, resid):
            assert torch.equal(hooks.run(model, batch, use_cache=False).logits[batch.mask], full[batch.mask])
        assert not torch.equal(hooks.run(model, batch, use_cache=False).logits[batch.mask], full[batch.mask])
    assert n_hooks(any_model) == before and not any("forward" in vars(block) for block in model.blocks)


def test_the_blocks_of_a_resumed_pass_up_to_there_do_no_work(any_model):
    batch, ran = pad(rows_of([4]), pad_token=0), []
    with hooks.resumed(any_model, 1, hooks.read(any_model, batch, [1])[1]):
        inside = [block.self_attn for block in any_model.blocks]
        handles = [part.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, part in enumerate(inside)]
        hooks.run(any_model, batch, use_cache=False)
    for handle in handles:
        handle.remove()
    assert ran == [2, 3]


@torch.no_grad()
def test_edits_before_the_resumption_are_in_it_and_those_after_apply(model):
    batch = pad(rows_of([6, 4]), pad_token=0, side="right")
    with hooks.edited(model, [nudge(0), nudge(1), nudge(3)]) as recorder:
        full, resid = hooks.run(model, batch, use_cache=False).logits, hooks.read(model, batch, [1, 3])
        visits = recorder.receipt.edits[0].firings
        with hooks.resumed(model, 1, resid[1]):
            assert torch.equal(hooks.run(model, batch, use_cache=False).logits[batch.mask], full[batch.mask])
            assert torch.equal(hooks.read(model, batch, [1, 3])[3][batch.mask], resid[3][batch.mask])
    assert recorder.receipt.edits[0].firings == visits  # a block that does no work is not visited


def test_a_model_behind_a_bridge_is_resumed_too(model):
    wrapped, batch = load_model(model.bridge()), pad(rows_of([6, 4]), pad_token=0)
    with torch.no_grad(), hooks.resumed(wrapped, 2, 2 * hooks.read(wrapped, batch, [2])[2]):
        logits = hooks.run(wrapped, batch, use_cache=False).logits
    with torch.no_grad(), hooks.edited(model, [hooks.Edit(2, "double", lambda at: at.valid, lambda at: at.resid)]):
        assert_close([logits[batch.mask]], [hooks.run(model, batch, use_cache=False).logits[batch.mask]])


def test_families_whose_blocks_answer_with_a_tuple_are_resumed_too():
    from transformers import AutoModelForCausalLM, GPTNeoConfig

    config = GPTNeoConfig(
        vocab_size=104, hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]]
    )
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model, batch = Model(hf, None, "tiny-gpt-neo"), pad(rows_of([6, 4]), pad_token=0)
    with torch.no_grad():
        full = hooks.run(model, batch, use_cache=False).logits
        with hooks.resumed(model, 1, hooks.read(model, batch, [1])[1]):
            assert torch.equal(hooks.run(model, batch, use_cache=False).logits, full)


def test_a_model_is_as_before_after_an_error_in_a_resumed_pass(model):
    batch, before = pad(rows_of([6]), pad_token=0), n_hooks(model)
    with torch.no_grad():
        clean = hooks.run(model, batch).logits
    with pytest.raises(KeyError), hooks.resumed(model, 2, torch.zeros(1, 6, 32)):
        raise KeyError
    with torch.no_grad():
        assert torch.equal(hooks.run(model, batch).logits, clean)
    assert n_hooks(model) == before


def test_a_resumption_that_makes_no_sense_is_refused(model):
    batch, resid = pad(rows_of([6]), pad_token=0), torch.zeros(1, 6, 32)
    with pytest.raises(ValueError, match="tiny-llama has no layer 4"), hooks.resumed(model, 4, resid):
        pass
    wrong = pytest.raises(ValueError, match=r"resume from is \(1, 5, 32\) and the pass \(1, 6, 32\)")
    with wrong, hooks.resumed(model, 2, resid[:, :5]):
        hooks.run(model, batch)
    lost = pytest.raises(ValueError, match="resumed after a later layer has nothing to read at layer 1")
    with lost, hooks.resumed(model, 2, resid):
        hooks.read(model, batch, [1])
