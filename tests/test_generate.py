"""Generation: what is written, where it ends, and what is counted."""

import copy
from dataclasses import replace
from threading import Thread

import pytest
import torch
from conftest import tiny_model, tiny_sae

from saereason import hooks
from saereason.features import Feature
from saereason.generate import generate
from saereason.model import pad
from saereason.prefixes import begun
from saereason.steering import Add, AddVector, Everywhere, Generated, LastPromptToken, Steps, steered
from saereason.writing import Budget, Ending, gumbel

SAES = {1: tiny_sae("topk", 1)}
EDIT = Add(Feature(1, 3), 5.0)


def with_settings(model, **settings):
    """The model with generation settings of its own."""
    hf = copy.copy(model.hf)
    hf.generation_config = copy.deepcopy(hf.generation_config)
    hf.generation_config.update(**settings)
    return replace(model, hf=hf)


def by_hand(model, row, steps):
    """Greedy continuation, one whole forward pass a token."""
    row, start = list(row), len(row)
    for _ in range(steps):
        with torch.no_grad():
            row.append(int(hooks.run(model, pad([row], pad_token=0), use_cache=False).logits[0, -1].argmax()))
    return tuple(row[start:])


def test_greedy_generation_is_argmax_token_by_token(any_model, prompts):
    prompts = [*prompts, "A prompt that is much longer than the window of sixteen tokens."]
    wrote = generate(any_model, prompts, max_new_tokens=8, batch_size=3)
    for prompt, text, tokens, finished in zip(prompts, wrote.texts, wrote.tokens, wrote.finished, strict=True):
        expected = by_hand(any_model, any_model.encode(prompt), 8)
        assert tokens == (expected if 2 not in expected else expected[: expected.index(2)])
        assert finished == (2 in expected)
        assert text == any_model.decode(tokens)


def test_the_settings_that_a_model_brings_do_not_apply(model, prompts):
    opinionated = with_settings(
        model, repetition_penalty=5.0, do_sample=True, temperature=9.0, top_k=2, num_beams=3, max_length=4,
        no_repeat_ngram_size=1, suppress_tokens=list(range(50)), min_new_tokens=5,
    )  # fmt: skip
    for options in ({}, {"temperature": 0.7}):
        plain = generate(model, prompts, max_new_tokens=12, **options)
        assert generate(opinionated, prompts, max_new_tokens=12, **options).tokens == plain.tokens
    assert opinionated.hf.generation_config.repetition_penalty == 5.0


def test_rows_end_at_any_end_of_text_token(model, prompts):
    endless = generate(model, prompts, max_new_tokens=12)
    for ends in (endless.tokens[0][4], [endless.tokens[0][4], endless.tokens[1][2]]):
        wrote = generate(with_settings(model, eos_token_id=ends), prompts, max_new_tokens=12)
        for before, tokens, finished in zip(endless.tokens, wrote.tokens, wrote.finished, strict=True):
            found = [n for n, token in enumerate(before) if token in (ends if isinstance(ends, list) else [ends])]
            assert tokens == (before[: found[0]] if found else before)
            assert finished == bool(found)
    assert True in wrote.finished


def test_a_model_without_an_end_of_text_token_writes_to_the_limit(prompts):
    model = tiny_model()
    model.tokenizer.eos_token = model.tokenizer.pad_token = None
    model.hf.generation_config.eos_token_id = None
    wrote = generate(model, prompts * 4, max_new_tokens=30, temperature=3.0)
    assert [len(tokens) for tokens in wrote.tokens] == [30] * 16
    assert any(0 in tokens for tokens in wrote.tokens)
    assert not any(wrote.finished)


def test_a_padding_token_that_the_model_writes_is_a_token_like_any(model, prompts):
    with steered(model, SAES, replace(EDIT, coefficient=0.0, when=Generated())):
        wrote = generate(model, prompts * 4, max_new_tokens=30, temperature=3.0)
    assert any(0 in tokens[:-1] for tokens in wrote.tokens)
    fed = [len(tokens) - (not end) for tokens, end in zip(wrote.tokens, wrote.finished, strict=True)]
    assert wrote.receipt.firings == sum(fed)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_row_ends_after_its_first_stop_string(model, prompts, batch_size):
    endless = generate(model, prompts, max_new_tokens=16)
    stop = [endless.texts[0][3:5], endless.texts[0][9], endless.texts[2][6:9]]
    with steered(model, SAES, replace(EDIT, coefficient=0.0, when=Generated())):
        wrote = generate(model, prompts, max_new_tokens=16, stop=stop, batch_size=batch_size)
    for before, text, finished in zip(endless.texts, wrote.texts, wrote.finished, strict=True):
        ends = [before.index(each) + len(each) for each in stop if each in before]
        assert text == (before[: min(ends)] if ends else before)
        assert finished == bool(ends)
    assert wrote.texts[0].endswith(stop[0])
    assert wrote.receipt.firings == sum(len(tokens) - 1 for tokens in wrote.tokens)


MANY = [f"{'word ' * (n % 4)}{n} is the number" for n in range(11)]


def ending_after(monkeypatch, length):
    """Answer number n ends after `length(n)` tokens at the latest."""

    def take(self, row, token, whole=Ending.take):
        whole(self, row, token)
        row.finished |= len(row.wrote) >= length(row.n)

    monkeypatch.setattr(Ending, "take", take)


@pytest.fixture
def of_different_lengths(monkeypatch):
    ending_after(monkeypatch, lambda n: 1 + 5 * n % 12)


@pytest.mark.usefixtures("of_different_lengths")
@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"temperature": 2.0}, {"forced": [[7] * (n % 3) for n in range(11)]}]
)
@pytest.mark.parametrize("when", [Steps(1, 3), LastPromptToken(), Everywhere()])
def test_waiting_rows_take_the_places_of_those_that_ended(any_model, monkeypatch, options, when):
    """What each row writes, and where it is edited, is what it is alone; sliding windows cannot be joined."""
    passes, run, said, done = [], hooks.run, [], []
    monkeypatch.setattr(hooks, "run", lambda m, rows, *a, **k: passes.append(len(rows.tokens)) or run(m, rows, *a, **k))
    with steered(any_model, SAES, replace(EDIT, when=when)):
        alone = generate(any_model, MANY, max_new_tokens=12, batch_size=1, **options)
        n_alone = len(passes)
        wrote = generate(
            any_model, MANY, max_new_tokens=12, batch_size=4, **options,
            on_token=lambda n, token: said.append(n), progress=lambda *so_far: done.append(so_far),
        )  # fmt: skip
    assert (wrote.tokens, wrote.finished) == (alone.tokens, alone.finished)
    [edit], [by_itself] = wrote.receipt.edits, alone.receipt.edits
    assert (edit.firings, edit.positions, edit.rows) == (by_itself.firings, by_itself.positions, by_itself.rows)
    assert done == sorted(set(done)) and done[-1] == (11, 11)
    assert max(passes[n_alone:]) == 4 and sum(passes[n_alone:]) == n_alone == len(said)
    first, last = ({n: found.index(n) for n in range(11)} for found in (said, said[::-1]))
    opened = sorted(first, key=first.get)
    joined = any(first[late] < len(said) - last[early] for early in opened[:4] for late in opened[4:])
    assert joined == (any_model.hf.config.model_type != "gemma3_text" or "use_cache" in options)


@pytest.mark.parametrize("kind", ["plain", "cross attention", "a layer without keys", "convolutions", "long positions"])
@pytest.mark.parametrize("when", [None, LastPromptToken()])
def test_long_prompts_are_read_a_few_at_a_time_and_written_together(kind, when, monkeypatch):
    model = tiny_model() if kind == "plain" else odd_model(kind)
    edits = [] if when is None else [AddVector(0, torch.ones(model.d_model), 3.0, when)]
    texts = ["Tom has 3", "Tom has 3", "abcdefgh", "Anna has 15", "x" * 14]
    with steered(model, {}, *edits):
        whole = generate(model, texts, max_new_tokens=5, batch_size=1)
        monkeypatch.setattr("saereason.together.AT_ONCE", 20)
        shapes, run = [], hooks.run
        monkeypatch.setattr(
            hooks, "run", lambda m, rows, *a, **k: shapes.append(tuple(rows.tokens.shape)) or run(m, rows, *a, **k)
        )
        pieces = generate(model, texts, max_new_tokens=5, batch_size=8)
    assert (pieces.tokens, pieces.finished) == (whole.tokens, whole.finished)
    if kind == "plain":
        n_opened = 4 if when is None else 5  # two are alike, and nothing is hooked; longer ones go alone
        opened = next(n for n, (rows, width) in enumerate(shapes) if rows == 5)
        assert sum(rows for rows, _ in shapes[:opened]) == n_opened
        assert all(rows == 1 or rows * width <= 20 for rows, width in shapes[:opened])


@pytest.mark.parametrize("kind", ["alibi", "local attention"])
def test_where_padding_is_seen_every_prompt_is_read_whole(kind, monkeypatch):
    """Models that count distances in columns: padding may stand before a row alone."""
    import transformers

    few = {"vocab_size": 104, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    if kind == "alibi":
        config = transformers.MptConfig(d_model=32, n_heads=4, n_layers=2, max_seq_len=128, **few)
    else:
        types = [[["global", "local"], 1]]
        small = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": types, "window_size": 16}
        config = transformers.GPTNeoConfig(max_position_embeddings=128, **small, **few)
    model = replace(tiny_model(), hf=_random(transformers.AutoModelForCausalLM.from_config, config))
    monkeypatch.setattr("saereason.prefixes.WORTH", 1)
    batch = pad([model.encode(f"{'ab' * 20}{rest}") for rest in ("", "xyz", "xxxxxxxx")], pad_token=0)
    lengths = batch.mask.sum(-1)
    with torch.no_grad():
        assert begun(model, batch, lengths) == (batch, None, 0)
        assert begun(tiny_model(), batch, lengths)[2] == 39


def test_a_pass_that_is_resumed_reads_every_prompt_whole(model, monkeypatch):
    monkeypatch.setattr("saereason.prefixes.WORTH", 1)
    batch = pad([model.encode(f"Tom has {rest}") for rest in ("", "xyz")], pad_token=0)
    with torch.no_grad():
        resid = hooks.read(model, batch, [1])[1]
        with hooks.resumed(model, 1, resid):
            assert begun(model, batch, batch.mask.sum(-1)) == (batch, None, 0)


def test_a_batch_is_no_wider_than_its_longest_row(model, monkeypatch):
    ending_after(monkeypatch, lambda n: [40, *[38] * 7, *[40] * 8][n])
    widths, run = [], hooks.run
    monkeypatch.setattr(
        hooks, "run", lambda m, rows, *a, **k: widths.append(rows.tokens.shape[1]) or run(m, rows, *a, **k)
    )
    wrote = generate(with_settings(model, eos_token_id=model.d_vocab), ["ab"] * 16, max_new_tokens=40, batch_size=8)
    assert set(map(len, wrote.tokens)) == {38, 40} and max(widths) == 2 + 39


def odd_model(kind):
    """Models whose caches or positions do not let rows of different lengths be put together."""
    import transformers

    few = {"vocab_size": 104, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, **few}
    if kind == "cross attention":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=128, add_cross_attention=True, **few
        )
    elif kind == "a layer without keys":
        text = {**small, "num_hidden_layers": 4, "cross_attention_layers": [1, 3], "max_position_embeddings": 128}
        config = transformers.models.mllama.configuration_mllama.MllamaTextConfig(**text, rope_parameters=ROPE)
        return replace(tiny_model(), hf=_random(transformers.MllamaForCausalLM, config))
    elif kind == "convolutions":
        config = transformers.Lfm2Config(**small, num_hidden_layers=2, layer_types=["conv", "full_attention"])
        return replace(tiny_model(), hf=_random(transformers.AutoModelForCausalLM.from_config, config))
    else:
        rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
        lengths = {"original_max_position_embeddings": 32, "max_position_embeddings": 128}
        config = transformers.Phi3Config(**small, num_hidden_layers=2, **lengths, rope_parameters=rope)
    return replace(tiny_model(), hf=_random(transformers.AutoModelForCausalLM.from_config, config))


ROPE = {"rope_type": "default", "rope_theta": 10_000.0}


def _random(made, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return made(config).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["cross attention", "a layer without keys", "long positions"])
def test_a_batch_ends_before_the_next_where_rows_cannot_join(kind, monkeypatch):
    """For long positions: the third row, which never gets far, is what it is without the first, which does."""
    model, lengths = odd_model(kind), [60, 38, 12]
    ending_after(monkeypatch, lambda n: lengths[n])
    wrote = generate(model, ["a", "b", "c"], max_new_tokens=60, batch_size=2)
    ending_after(monkeypatch, lambda n: 12)
    assert generate(model, ["c"], max_new_tokens=60).tokens[0] == wrote.tokens[2]


@pytest.mark.parametrize("kind", ["cross attention", "a layer without keys", "long positions", "convolutions"])
def test_samples_of_one_prompt_are_what_they_are_alone_in_any_model(kind):
    model, many = odd_model(kind), ["Tom has", "Tom has", "Hi", "Tom has"]
    alone = generate(model, many, max_new_tokens=6, temperature=1.0, batch_size=1)
    assert generate(model, many, max_new_tokens=6, temperature=1.0).tokens == alone.tokens


def test_a_special_token_stops_though_no_text_shows_it(model):
    (tokens,) = generate(model, ["a4"], max_new_tokens=8).tokens
    assert model.tokenizer.convert_ids_to_tokens(tokens[1]) == "<|pad|>"
    written = generate(model, ["a4"], max_new_tokens=8, stop=["<|pad|>"])
    assert (written.tokens, written.finished) == ((tokens[:1],), (True,))


def test_a_stop_string_may_begin_in_the_opening_but_not_in_the_prompt(model):
    [text] = generate(model, ["Hi\n"], max_new_tokens=8).texts
    whole = generate(model, ["Hi\n"], max_new_tokens=8, stop=["\n" + text[0], "i\n" + text[:2]])
    assert (whole.texts, whole.finished) == ((text,), (False,))
    opening = [model.encode("ab")]
    [text] = generate(model, ["Hi"], max_new_tokens=8, forced=opening).texts
    assert text.startswith("ab")
    for stop in (text[1:4], text[:3]):
        wrote = generate(model, ["Hi"], max_new_tokens=8, forced=opening, stop=[stop])
        assert (wrote.texts, wrote.finished) == ((text[: text.index(stop) + len(stop)],), (True,))
    assert generate(model, ["Hi"], max_new_tokens=8, forced=opening, stop=["a", "ab"]).texts == (text,)


def test_forced_openings_count_as_generated(any_model, prompts):
    ids = [any_model.encode(prompt) for prompt in prompts]
    forced = [[20, 21, 22], [], [30], [40, 41]]
    for when, expected in {
        LastPromptToken(): {len(row) - 1 for row in ids},
        Steps(0, 0): {len(row) for row in ids},
        Steps(2, 2): {len(row) + 2 for row in ids},
    }.items():
        with steered(any_model, SAES, replace(EDIT, coefficient=0.0, when=when)):
            wrote = generate(any_model, prompts, forced=forced, max_new_tokens=4)
        assert [list(tokens[: len(row)]) for tokens, row in zip(wrote.tokens, forced, strict=True)] == forced
        assert wrote.receipt.edits[0].positions == tuple(sorted(expected))
        assert wrote.receipt.firings == len(prompts)
    for row, opening, tokens in zip(ids, forced, wrote.tokens, strict=True):
        assert tokens[len(opening) :] == by_hand(any_model, row + opening, 4)


@pytest.mark.parametrize("when", [Everywhere(), LastPromptToken()])
def test_single_tokens_in_and_out(any_model, when):
    with steered(any_model, SAES, replace(EDIT, when=when)):
        wrote = generate(any_model, ["a"], max_new_tokens=1)
        assert wrote.tokens == (by_hand(any_model, any_model.encode("a"), 1),)
    assert (wrote.receipt.firings, wrote.receipt.edits[0].positions) == (1, (0,))


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_that_have_ended_leave_the_batch_and_the_rest_write_on_as_before(any_model, prompts, use_cache):
    options = {"max_new_tokens": 24, "temperature": 1.5, "use_cache": use_cache}
    endless = generate(with_settings(any_model, eos_token_id=None), prompts * 3, **options)
    shapes = []
    watch = any_model.hf.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    ends = [endless.tokens[0][3], endless.tokens[5][9]]
    wrote = generate(with_settings(any_model, eos_token_id=ends), prompts * 3, **options)
    watch.remove()
    lasting = [min([n for n, token in enumerate(row) if token in ends], default=len(row)) for row in endless.tokens]
    assert wrote.tokens == tuple(row[:n] for row, n in zip(endless.tokens, lasting, strict=True))
    assert shapes == [sum(n >= step for n in lasting) for step in range(min(max(lasting) + 1, 24))]
    assert shapes[0] == 12 > shapes[-1], "whoever hooks the model sees copies of a prompt, too"


def test_answers_come_in_the_order_of_the_prompts_with_progress(model, prompts):
    told = []
    wrote = generate(model, prompts, max_new_tokens=4, batch_size=3, progress=lambda *counts: told.append(counts))
    assert wrote.prompts == tuple(prompts)
    assert wrote.tokens == tuple(generate(model, [prompt], max_new_tokens=4).tokens[0] for prompt in prompts)
    assert told == [(3, 4), (4, 4)]


def test_chat_prompts_are_not_given_special_tokens_twice(model):
    rendered = model.render("Hi", system="Be brief.")
    assert generate(model, [rendered], max_new_tokens=5).tokens == (by_hand(model, model.encode(rendered), 5),)
    assert model.encode(rendered)[0] == 1
    assert 1 not in model.encode(rendered)[1:2]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gumbel_max_draws_from_the_softmax(temperature):
    logits, draws = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")]), 4000
    generators = [torch.Generator().manual_seed(n) for n in range(draws)]
    scores = logits.expand(draws, -1)
    for _ in range(2):
        counts = gumbel(scores, temperature, generators).argmax(-1).bincount(minlength=5)
        expected = draws * (logits / temperature).softmax(-1)
        assert counts[4] == 0
        assert ((counts - expected)[:4].square() / expected[:4]).sum() < 16.3  # 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("edited", [False, True])
def test_samples_of_one_prompt_read_it_once(any_model, monkeypatch, edited):
    """Three prompts, four samples each: what each writes is what it is alone; an edit may differ by row."""
    many, opened, run = [*MANY[:3]] * 4, [], hooks.run

    def counted(model, batch, cache=None, **options):
        opened.extend([len(batch.tokens)] if cache is None else [])
        return run(model, batch, cache, **options)

    with steered(any_model, SAES, *([replace(EDIT, when=Generated())] if edited else [])):
        alone = generate(any_model, many, max_new_tokens=12, temperature=2.0, batch_size=1)
        monkeypatch.setattr(hooks, "run", counted)
        wrote = generate(any_model, many, max_new_tokens=12, temperature=2.0, batch_size=12)
    assert (wrote.tokens, wrote.finished) == (alone.tokens, alone.finished)
    assert opened == [12 if edited else 3] and len(set(wrote.tokens)) > 6


def test_a_low_temperature_is_greedy(model, prompts):
    cold = generate(model, prompts, max_new_tokens=10, temperature=1e-4)
    assert cold.tokens == generate(model, prompts, max_new_tokens=10).tokens


def test_two_threads_generate_as_one_after_the_other(model, prompts):
    models, found = {"llama": model, "qwen2": tiny_model("qwen2")}, {}

    def write(name, into):
        with steered(models[name], SAES, replace(EDIT, when=Generated())):
            wrote = generate(models[name], prompts[: 4 if name == "llama" else 3], max_new_tokens=20, temperature=1.0)
        into[name] = (wrote.tokens, wrote.receipt)

    alone: dict = {}
    for name in models:
        write(name, alone)
    threads = [Thread(target=write, args=(name, found)) for name in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.parametrize(
    ("prompts", "options", "sentence"),
    [
        ("Hi", {}, "prompts is one text; give a list of prompts"),
        ([], {}, "there are no prompts; give at least one"),
        ([""], {}, "the prompt has no tokens; give at least one word"),
        (["x" * 512], {}, "the prompt has 512 tokens and the model's context is 512; shorten the prompt"),
        (["x" * 500], {"max_new_tokens": 13}, "13 new tokens make 513; the model's context is 512"),
        (["x" * 500], {"max_new_tokens": 12, "forced": [[5]]}, "12 new tokens make 513; the model's context is 512"),
        (["Hi"], {"max_new_tokens": 0}, "max_new_tokens is 0 and batch_size 32; both must be at least 1"),
        (["Hi"], {"batch_size": 0}, "batch_size 0; both must be at least 1"),
        (["Hi"], {"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        (["Hi"], {"temperature": float("nan")}, "temperature is nan; it must be 0"),
        (["Hi"], {"stop": "END"}, "stop is 'END'; give a list of texts"),
        (["Hi"], {"stop": [""]}, "none of them empty"),
        (["Hi"], {"forced": [[1], [2]]}, "2 forced openings for 1 prompts; give one each"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_a_sentence(model, prompts, options, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        generate(model, prompts, **options)
    assert str(error.value).endswith(".")


def test_a_prompt_may_fill_the_context_to_the_last_token(any_model):
    assert len(generate(any_model, ["x" * 508], max_new_tokens=4).tokens[0]) <= 4


def test_an_empty_prompt_is_refused_though_the_tokenizer_would_open_it_with_a_token(model, monkeypatch):
    tokenize = type(model.tokenizer).__call__
    opened = lambda self, text, **options: {"input_ids": [1, *tokenize(self, text, **options)["input_ids"]]}  # noqa: E731
    monkeypatch.setattr(type(model.tokenizer), "__call__", opened)
    assert model.encode("a")[0] == 1
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        generate(model, [""], max_new_tokens=1)


def test_each_token_is_told_as_it_is_written(model, prompts):
    told = []
    wrote = generate(model, prompts, max_new_tokens=6, batch_size=3, on_token=lambda *each: told.append(each))
    for n, (tokens, finished) in enumerate(zip(wrote.tokens, wrote.finished, strict=True)):
        assert [token for row, token in told if row == n] == [*tokens, *([2] if finished else [])]
    assert told[:3] == [(row, token) for row, token in told if row in {r for r, _ in told[:3]}][:3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_of_a_budget_does_not_end_early(any_model, prompts, temperature):
    said = any_model.tokenizer(" Wait,", add_special_tokens=False)["input_ids"]
    options = {"max_new_tokens": 24, "temperature": temperature}
    endless = generate(any_model, prompts, **options).tokens
    ends = {row[n] for row, n in zip(endless, (4, 2, 7), strict=False)} - set(said)
    ending = with_settings(any_model, eos_token_id=sorted(ends))
    free = generate(ending, prompts, **options)
    assert min(map(len, free.tokens)) < 10
    held = generate(ending, prompts, budget=Budget(10), **options)
    for before, tokens in zip(free.tokens, held.tokens, strict=True):
        assert len(tokens) >= 10 and tokens[: len(before)] == before
        assert not {*ending.hf.generation_config.eos_token_id, 2} & set(tokens)
    waiting = generate(ending, prompts, budget=Budget(10, wait=" Wait,"), **options)
    for before, tokens in zip(free.tokens, waiting.tokens, strict=True):
        assert len(tokens) >= 10
        if len(before) < 10:
            assert list(tokens[: len(before) + len(said)]) == [*before, *said]


def test_a_budget_may_hold_the_end_of_thinking(model, prompts):
    free = generate(model, prompts, max_new_tokens=12)
    end = free.tokens[0][3]
    held = generate(model, prompts, max_new_tokens=12, budget=Budget(8, ends=(end,)))
    assert all(end not in tokens[:8] for tokens in held.tokens)
    assert held.tokens[0][:3] == free.tokens[0][:3] != held.tokens[0][1:4]
    with pytest.raises(ValueError, match="least is 0"):
        Budget(0)


@pytest.mark.parametrize("options", [{"forced": [[5, 5000]]}, {"forced": [[-1]]}, {"budget": Budget(3, ends=(5000,))}])
def test_tokens_that_are_not_there_are_refused(model, options):
    with pytest.raises(ValueError, match=r"there is no token (5000|-1); the tokens of tiny-llama are 0 to 103"):
        generate(model, ["Hi"], max_new_tokens=2, **options)


@pytest.mark.parametrize("wait", ["", " Wait"])
def test_a_stop_string_ends_no_answer_before_its_budget(model, prompts, wait):
    plain = generate(model, prompts, max_new_tokens=40, budget=Budget(40, wait)).texts
    for least in (1, 5, 20):
        wrote = generate(model, prompts, max_new_tokens=40, budget=Budget(least, wait), stop=["a", "e", "t"])
        for text, tokens, whole in zip(wrote.texts, wrote.tokens, plain, strict=True):
            assert len(tokens) >= least
            if whole.startswith(text) and len(tokens) < 40:  # it was the stop string that ended it, a token a character
                assert text[-1] in "aet" and not set(text[least - 1 : -1]) & set("aet")
