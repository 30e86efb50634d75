"""Training SAEs: the step against SAELens's own, the buffer, the loop, what is measured of the result."""

import multiprocessing
import os
import random
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch
from conftest import tiny_model, tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens.saes.sae import TrainStepInput

from saereason import Design, Quality, evaluate_saes, hooks, load_saes, save_saes, train_saes
from saereason.loading import random_copy
from saereason.model import pad
from saereason.plots import plot_training
from saereason.saes import check_saes
from saereason.training import Framing, Log, Standing, journal, needed, plan, read_log
from saereason.training.stream import Stream
from saereason.training.topk import topk_step

DESIGN = Design(d_sae=64, k=8)
SMALL = {"batch_size": 64, "buffer_tokens": 512}


def rows_of(n, seed=0, shortest=2, longest=24):
    """Rows of words of a made-up language, so that there is something to learn."""
    rng = random.Random(seed)
    words = [[rng.randint(4, 40) for _ in range(rng.randint(1, 4))] for _ in range(12)]
    return [[t for _ in range(longest) for t in rng.choice(words)][: rng.randint(shortest, longest)] for _ in range(n)]


@pytest.fixture(scope="module")
def trained(model):
    logs = []
    return train_saes(model, rows_of(700), [1, 3], DESIGN, **SMALL, progress=logs.append), logs


# one step


@pytest.mark.parametrize("n_dead", [None, 0, 5, 16, 40])
@pytest.mark.parametrize("norms", ["equal", "spread"])
@pytest.mark.parametrize("kind", ["TopK", "BatchTopK", "MatryoshkaBatchTopK"])
def test_a_step_has_saelens_own_loss_and_gradients(n_dead, norms, kind):
    torch.manual_seed(0)
    config, sae_class = (getattr(sae_lens, f"{kind}TrainingSAE{end}") for end in ("Config", ""))
    widths = {"matryoshka_widths": [8, 40, 96]} if kind == "MatryoshkaBatchTopK" else {}
    sae = sae_class(config(d_in=32, d_sae=96, k=8, **widths)).train()
    sae.b_enc.data, sae.b_dec.data = 0.3 * torch.randn(96), 0.3 * torch.randn(32)
    if norms == "spread":
        sae.W_dec.data *= torch.linspace(0.3, 3, 96)[:, None]
    x = torch.randn(40, 32) * torch.linspace(0.1, 3, 40)[:, None]
    dead = None if n_dead is None else torch.randperm(96) < n_dead

    def gradients():
        return {name: weight.grad.clone() for name, weight in sae.named_parameters()}

    theirs = sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False))
    theirs.loss.backward()
    expected = gradients()
    sae.zero_grad()
    ours = topk_step(sae, x, dead)
    torch.testing.assert_close(ours.loss, theirs.loss.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mse, theirs.losses["mse_loss"].detach(), rtol=1e-4, atol=1e-4)
    found = gradients()
    assert set(found) == set(expected) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)
    assert torch.equal(ours.fired.bincount(minlength=96), (theirs.feature_acts > 0).sum(0))


# the stream


@dataclass(frozen=True, eq=False)
class Counted(Stream):
    """A stream whose activations say which token they are of, and of which layer, instead of reading a model."""

    def activations(self, skip=0):
        first = int(np.searchsorted(self.ends, skip, side="right"))
        for end, rows in zip(self.ends[first:].tolist(), self.passes[first:], strict=True):
            ids = torch.arange(max(skip, end - sum(len(row) - 1 for row in rows)), end).float()[:, None]
            yield {layer: torch.cat([ids, torch.full_like(ids, layer)], dim=1) for layer in self.layers}


def counted(sizes, batch_size, window, seed=0):
    model = SimpleNamespace(d_model=2, device=torch.device("cpu"))
    rows = [[5] * (size + 1) for size in sizes]
    return Counted(model, rows, (0, 5), torch.float32, batch_size, window, seed, model.device)


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8), st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_every_activation_is_handed_out_once(sizes, batch_size, room):
    stream = counted(sizes, batch_size, batch_size + room)
    batches = list(stream.batches())
    assert len(batches) == stream.n_steps and all(len(batch[0]) == batch_size for batch in batches)
    ids = [int(i) for batch in batches for i in batch[0][:, 0]]
    assert len(ids) == len(set(ids)) and set(ids) <= set(range(sum(sizes)))
    assert sum(sizes) - len(ids) < batch_size
    for batch in batches:
        assert torch.equal(batch[0][:, 0], batch[5][:, 0])
        assert set(batch[0][:, 1].tolist()) == {0} and set(batch[5][:, 1].tolist()) == {5}


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8), st.integers(0, 60), st.integers(0, 200))
@settings(max_examples=80, deadline=None)
def test_what_comes_from_a_step_on_does_not_depend_on_what_went_before(sizes, batch_size, room, start):
    stream = counted(sizes, batch_size, batch_size + room)
    whole, rest = list(stream.batches())[start:], list(stream.batches(start))
    assert len(whole) == len(rest)
    assert all(torch.equal(a[5], b[5]) for a, b in zip(whole, rest, strict=True))


def test_batches_mix_tokens_from_far_apart():
    first = next(counted([10] * 20, 10, 100).batches())[0][:, 0]
    assert first.max() - first.min() > 40 and not torch.equal(first, first.sort().values)
    assert not torch.equal(first, next(counted([10] * 20, 10, 100, seed=1).batches())[0][:, 0])


def test_activations_are_those_of_every_token_but_the_first(model):
    rows = rows_of(40, shortest=1)
    stream = Stream(model, rows, (0, 2), torch.float32, 8, 64, 0, model.device)
    ordered = [row for rows in stream.passes for row in rows]
    assert sorted(ordered) == sorted(rows) and stream.n_tokens == sum(len(row) - 1 for row in rows)
    for skip in (0, 5, int(stream.ends[0]), int(stream.ends[0]) + 7):
        parts = list(stream.activations(skip))
        for layer in (0, 2):
            alone = [hooks.read(model, pad([row], pad_token=0), [layer])[layer][0, 1:] for row in ordered]
            found = torch.cat([part[layer] for part in parts])
            torch.testing.assert_close(found, torch.cat(alone)[skip:], atol=1e-4, rtol=1e-4)


# the loop


def test_training_explains_more_and_more(model, trained):
    saes, logs = trained
    held_out = rows_of(60, seed=0)[:20] + rows_of(40, seed=0, shortest=10)
    short = train_saes(model, rows_of(8, shortest=20), [1, 3], DESIGN, **SMALL)
    for before, after in zip(evaluate_saes(model, short, held_out), evaluate_saes(model, saes, held_out), strict=True):
        assert after.explained_variance > before.explained_variance + 0.1 and after.explained_variance > 0.5
        assert after.loss_recovered > before.loss_recovered
        assert 1 < after.l0 <= 8
    assert logs[-1].saes[0].explained_variance > logs[0].saes[0].explained_variance + 0.3
    assert [sae.layer for sae in logs[0].saes] == [1, 3] and 1 < logs[-1].saes[1].l0 <= 8
    assert [log.tokens for log in logs] == [64 * n for n in range(1, len(logs) + 1)]
    n_tokens = sum(len(row) - 1 for row in rows_of(700))
    assert logs[-1].n_tokens == logs[-1].tokens and 0 <= n_tokens - logs[-1].tokens < 64


def test_saes_speak_in_the_residual_streams_own_units():
    loud = tiny_model(seed=1)
    loud.hf.model.embed_tokens.weight *= 40
    (quality,) = evaluate_saes(loud, train_saes(loud, rows_of(250), [1], DESIGN, **SMALL), rows_of(30))
    assert quality.mean_norm > 50 and quality.explained_variance > 0.5


def test_the_result_depends_on_the_seed_alone(model):
    def train(seed=0, layers=(1,)):
        return train_saes(model, rows_of(60), layers, replace(DESIGN, seed=seed), **SMALL)[1].state_dict()

    torch.manual_seed(1)
    first, state = train(), torch.get_rng_state()
    torch.manual_seed(2)
    random.seed(3), np.random.seed(3)
    again, with_another, other = train(), train(layers=(3, 1)), train(seed=1)
    assert all(torch.equal(again[name], weight) for name, weight in first.items())
    assert all(torch.allclose(with_another[name], weight, atol=1e-4) for name, weight in first.items())
    assert not torch.allclose(other["W_enc"], first["W_enc"], atol=1e-2)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_saelens_opens_what_was_trained(tmp_path, model, trained):
    saes, logs = trained
    folder = save_saes(saes, tmp_path / "saes")
    x = hooks.read(model, pad([rows_of(3, shortest=20)[0]], pad_token=0), [3])[3][0]
    theirs = sae_lens.SAE.load_from_disk(folder / "layer_03")
    assert theirs.cfg.architecture() == "topk" and theirs.cfg.k == 8 and theirs.cfg.normalize_activations == "none"
    assert torch.equal(theirs(x), saes[3](x)) and torch.equal(load_saes(folder)[3](x), saes[3](x))
    metadata = theirs.cfg.metadata
    assert (metadata.hook_name, metadata.model_hash) == ("blocks.3.hook_resid_post", model.hash)
    assert (metadata.model_name, metadata.n_tokens, metadata.seed) == (model.name, logs[-1].tokens, 0)


def test_decoder_rows_have_norm_1_and_belong_to_the_model(model, trained):
    for layer, sae in trained[0].items():
        torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(64))
        assert not sae.cfg.rescale_acts_by_decoder_norm and not sae.W_dec.requires_grad and not sae.training
        check_saes(model, {layer: sae})
    with pytest.warns(UserWarning, match="was trained on weights"):
        check_saes(tiny_model(seed=5), trained[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": []}, "give at least one, each once"),
        ({"layers": [1, 1]}, "give at least one, each once"),
        ({"layers": [4]}, "tiny-llama has no layer 4"),
        ({"batch_size": 1000, "buffer_tokens": 2000}, "one batch needs 1000; give more text"),
        ({"batch_size": 600}, "batch_size is 600 and buffer_tokens 512; the buffer must hold a batch"),
        ({"batch_size": 0}, "the buffer must hold a batch"),
        ({"rows": []}, "the texts have 0 tokens"),
        ({"rows": [[5], [], [6]] * 99}, "the texts have 0 tokens"),
        ({"rows": [[5, 6, 104]] * 60}, "row 0 has token id 104; tiny-llama has ids from 0 to 103"),
        ({"rows": [[5, 6, 7]] * 60 + [[5, -1]]}, "row 60 has token id -1"),
        ({"rows": [[5, 6] * 300] * 10}, "row 0 has 600 tokens and the context of tiny-llama is 512"),
        ({"rows": [[5] * 30] * 60}, "the activations at layer 1 do not vary"),
        ({"dtype": torch.int8}, "dtype is torch.int8"),
        ({"checkpoint": Path(__file__).parent}, "is a folder; give the name of a file"),
        ({"rows": rows_of(700), "design": replace(DESIGN, lr=1e6)}, "train with a smaller learning rate"),
    ],
)
def test_training_that_makes_no_sense_is_refused(model, change, says):
    arguments = {"rows": rows_of(40), "layers": [1], **SMALL, **change}
    with pytest.raises(ValueError, match=says):
        train_saes(model, arguments.pop("rows"), arguments.pop("layers"), **arguments)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 0}, "k must be from 1 to d_sae"),
        ({"k": 65, "d_sae": 64}, "k is 65 and d_sae 64"),
        ({"architecture": "gated"}, "no architecture 'gated'"),
        ({"frozen": "both"}, "it can be 'decoder', 'encoder' or None"),
        ({"penalty": 1.0}, "a topk SAE has no penalty"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"architecture": "jumprelu", "penalty": -1.0}, "penalty is -1.0"),
        ({"architecture": "matryoshka_batchtopk", "d_sae": 7, "k": 2}, "a matryoshka SAE needs at least 8"),
    ],
)
def test_designs_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Design(**settings)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "standard"])
def test_every_architecture_of_saelens_is_trained_and_served(model, tmp_path, architecture):
    penalty = {"standard": 0.5, "jumprelu": 0.5}.get(architecture)
    design = Design(architecture, d_sae=64, k=8, penalty=penalty, lr=4e-3)
    saes = train_saes(model, rows_of(1500), [2], design, **SMALL)
    (quality,) = evaluate_saes(model, saes, rows_of(30, seed=0))
    assert quality.explained_variance > 0.2 and quality.l0 < 60
    torch.testing.assert_close(saes[2].W_dec.norm(dim=-1), torch.ones(64))
    loaded = load_saes(save_saes(saes, tmp_path / "saes"))[2]
    x = hooks.read(model, pad([rows_of(3, shortest=20)[0]], pad_token=0), [2])[2][0]
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), saes[2].decode(saes[2].encode(x)))
    assert loaded.cfg.metadata.design["architecture"] == architecture
    if "batchtopk" in architecture:
        assert loaded.cfg.architecture() == "jumprelu" and 2 < quality.l0 < 16


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_a_frozen_part_stays_as_it_was_drawn(model, part):
    design = replace(DESIGN, frozen=part)
    drawn, trained = design.draw(model, 1, model.device), train_saes(model, rows_of(60), [1], design, **SMALL)[1]
    name = {"decoder": "W_dec", "encoder": "W_enc"}[part]
    before, after = getattr(drawn, name), getattr(trained, name)
    axis = 1 if part == "decoder" else 0
    kept = torch.cosine_similarity(before, after, dim=axis)
    other = {"decoder": "W_enc", "encoder": "W_dec"}[part]
    moved = torch.cosine_similarity(getattr(drawn, other), getattr(trained, other), dim=1 - axis)
    torch.testing.assert_close(kept, torch.ones(64))
    assert moved.min() < 0.99


def test_a_random_copy_has_the_shape_and_none_of_the_weights(any_model):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    copy, again = random_copy(any_model, seed=7), random_copy(any_model, seed=7)
    assert copy.hash == again.hash != any_model.hash and copy.n_layers == any_model.n_layers
    assert torch.equal(torch.get_rng_state(), state)
    assert random_copy(any_model, seed=1).hash != copy.hash


def test_several_designs_share_one_pass_and_come_out_as_if_alone(model, monkeypatch):
    designs = [DESIGN, replace(DESIGN, seed=1), replace(DESIGN, d_sae=32)]
    passes = []
    monkeypatch.setattr("saereason.training.stream.read", lambda *a: passes.append(1) or hooks.read(*a))
    together = train_saes(model, rows_of(60), [1, 3], designs, **SMALL)
    n_together = len(passes)
    for n in (0, 2):  # the order of the activations is the first design's
        passes.clear()
        alone = train_saes(model, rows_of(60), [1, 3], designs[n], **SMALL)
        assert len(passes) == n_together
        for layer in (1, 3):
            for name, weight in alone[layer].state_dict().items():
                assert torch.equal(together[n][layer].state_dict()[name], weight)
    assert together[1][1].cfg.metadata.seed == 1 and len(together[2][3].W_dec) == 32


@pytest.mark.parametrize("n_tokens", [640, 1600, 6400])
def test_training_ends_at_the_number_of_tokens_asked_for(model, n_tokens):
    rows, logs = rows_of(200), []
    saes = train_saes(model, rows, [1], DESIGN, **SMALL, n_tokens=n_tokens, progress=logs.append)
    assert logs[-1].tokens == n_tokens == saes[1].cfg.metadata.n_tokens == 64 * logs[-1].n_steps
    stream = plan(model, rows, [1], DESIGN, **SMALL, n_tokens=n_tokens, dtype=torch.float32).stream
    ours = torch.cat([batch[1] for batch in stream.batches()])
    once = torch.cat([part[1] for part in _once(stream)])
    expected = torch.cat([once] * (n_tokens // len(once) + 1))[:n_tokens]
    assert torch.equal(ours[ours[:, 0].argsort(stable=True), 0], expected[:, 0].sort().values)


def _once(stream):
    return list(replace(stream, most=None).activations())


def test_tokens_that_are_left_out_are_not_trained_on(model):
    rows, unwanted = rows_of(60), frozenset({rows_of(60)[0][1], rows_of(60)[1][2]})
    stream = plan(model, rows, [1], DESIGN, **SMALL, left_out=unwanted).stream
    kept = [row[n] not in unwanted for rows in stream.passes for row in rows for n in range(1, len(row))]
    everything = torch.cat([part[1] for part in _once(replace(stream, left_out=frozenset()))])
    found = torch.cat([part[1] for part in _once(stream)])
    assert 0 < len(found) == sum(kept) == stream.n_tokens < len(kept)
    assert torch.equal(found, everything[torch.tensor(kept)])
    skipped = torch.cat([part[1] for part in stream.activations(skip=33)])
    assert torch.equal(skipped, found[33:])


def test_texts_may_be_strings(model):
    texts = [f"the number {n} comes after {n - 1}" for n in range(60)]
    rows = [model.tokenizer(text)["input_ids"] for text in texts]
    ours, theirs = (train_saes(model, given, [1], DESIGN, **SMALL)[1] for given in (texts, rows))
    assert torch.equal(ours.W_enc, theirs.W_enc)
    with pytest.raises(ValueError, match="partly strings"):
        train_saes(model, [*texts, rows[0]], [1], DESIGN, **SMALL)


def test_precision_is_recorded_and_can_be_chosen(model):
    for dtype in (torch.float32, torch.bfloat16):
        saes = train_saes(model, rows_of(60), [1], DESIGN, **SMALL, dtype=dtype)
        assert saes[1].cfg.metadata.precision == str(dtype).removeprefix("torch.")
        assert saes[1].W_enc.dtype == torch.float32
        assert "float32, on cpu" in str(plan(model, rows_of(60), [1], DESIGN, **SMALL, dtype=dtype))


@pytest.mark.parametrize("bos", [True, False])
def test_the_card_says_whether_rows_begin_with_bos(model, bos):
    rows = Framing(bos=bos).rows(model, rows_of(60))
    assert train_saes(model, rows, [1], DESIGN, **SMALL)[1].cfg.metadata.prepend_bos is bos


def test_more_memory_than_there_is_is_refused_before_any_work(model, monkeypatch):
    monkeypatch.setattr("saereason.training.memory.available", lambda device: 100_000)
    monkeypatch.setattr("saereason.training.stream.read", None)
    with pytest.raises(ValueError, match=r"training needs .* GB of memory .* has 0.00 GB free; take fewer layers"):
        train_saes(model, rows_of(60), [1], DESIGN, **SMALL)


def test_memory_grows_with_what_it_is_needed_for(model):
    def need(layers=(1,), design=DESIGN, **sizes):
        planned = plan(model, rows_of(60), layers, design, **{**SMALL, **sizes})
        return needed(planned.stream, planned.designs)

    one, wide, both = need(), need(design=replace(DESIGN, d_sae=128)), need(design=[DESIGN, replace(DESIGN, seed=1)])
    assert one.saes == 16 * (2 * 32 * 64)
    assert wide.saes == 2 * one.saes == both.saes and need(layers=(0, 1, 2)).saes == 3 * one.saes
    assert (
        need(buffer_tokens=1024).buffer - one.buffer
        == 512 * 32 * plan(model, rows_of(60), [1], DESIGN, **SMALL).stream.dtype.itemsize
    )
    assert need(batch_size=256).step > one.step


# the journal


def test_the_journal_has_a_line_for_every_sae_and_step(model, tmp_path):
    with journal(tmp_path, seconds=0.0) as notes:
        train_saes(model, rows_of(60), [1, 3], [DESIGN, replace(DESIGN, seed=1)], **SMALL, progress=notes.note)
    log = read_log(tmp_path)
    assert len(log) == 4 * log["tokens"].nunique() and log["tokens"].max() == log["n_tokens"].max()
    assert set(zip(log["design"], log["layer"], strict=True)) == {(0, 1), (0, 3), (1, 1), (1, 3)}
    assert {"loss", "explained_variance", "l0", "dead", "tokens_per_second", "step_tokens_per_second"} < set(log)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "log.parquet"), log)
    assert len(plot_training(log).data) == 16


def test_a_rate_counts_the_time_between_its_line_and_the_one_before(monkeypatch, tmp_path):
    """A step that waits for a window of activations is slow, those after it fast: no single one is the rate."""
    clock = iter([0.0, 10.0, 10.5, 11.0, 11.0, 11.0, 21.0])
    monkeypatch.setattr(sys.modules["saereason.training.journal"], "monotonic", lambda: next(clock))
    with journal(tmp_path, seconds=1.0) as notes:
        for step in range(1, 5):
            notes.note(Log(step, 4, 100 * step, 400, 1e6, (Standing(0, 1, 1.0, 0.5, 2.0, 0.0, 3e6),)))
    log = read_log(tmp_path)
    assert log["tokens"].tolist() == [100, 300, 400]
    assert log["tokens_per_second"].tolist() == [10.0, 200.0, 10.0]
    assert "19 tokens a second in all" in plot_training(log).layout.title.text


def test_a_journal_goes_on_where_training_does(model, tmp_path):
    options = {**SMALL, "checkpoint": tmp_path / "state", "checkpoint_every": 320}

    def train(stop=None):
        with journal(tmp_path, seconds=0.0) as notes:

            def watch(log):
                notes.note(log)
                if log.tokens == stop:
                    raise StoppedError

            train_saes(model, rows_of(120), [1], DESIGN, **options, progress=watch)

    with pytest.raises(StoppedError):
        train(stop=512)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"tokens": 57')  # a kill in the middle of a line
    train()
    tokens = read_log(tmp_path)["tokens"].tolist()
    assert tokens == [64 * (n + 1) for n in range(len(tokens))] and len(tokens) > 8


def test_no_journal_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no training log at"):
        read_log(tmp_path)


# interruptions


def test_ctrl_c_loses_nothing(model, tmp_path):
    options, seen = {**SMALL, "checkpoint": tmp_path / "state"}, []

    def watch(log):
        seen.append(log.step)
        if log.step == 4:
            signal.raise_signal(signal.SIGINT)

    usual = signal.getsignal(signal.SIGINT)
    whole = train_saes(model, rows_of(60), [1], DESIGN, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        train_saes(model, rows_of(60), [1], DESIGN, **options, progress=watch)
    assert seen == [1, 2, 3, 4] and signal.getsignal(signal.SIGINT) is usual
    resumed = train_saes(model, rows_of(60), [1], DESIGN, **options, progress=watch)
    assert seen[4:] == list(range(5, seen[-1] + 1))
    assert all(torch.equal(resumed[1].state_dict()[n], w) for n, w in whole[1].state_dict().items())
    again = train_saes(model, rows_of(60), [1], DESIGN, **options, progress=watch)
    assert torch.equal(again[1].W_enc, whole[1].W_enc) and seen[-1] == len(seen)


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sae_lens", "transformers.models.llama.modeling_llama", "saereason.training.train"])


def train_until(stop, folder):
    """What a process does that kills itself after so many tokens."""

    def watch(log):
        if log.tokens == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    options = {**SMALL, "checkpoint": folder / "state", "checkpoint_every": 320, "progress": watch}
    save_saes(train_saes(tiny_model(), rows_of(250), [1, 3], DESIGN, **options), folder / "saes")


def run_training(folder, stop):
    process = PROCESSES.Process(target=train_until, args=(stop, folder))
    process.start()
    process.join(300)
    return process.exitcode


@pytest.mark.slow
def test_killed_training_ends_with_the_bits_of_training_that_was_not(tmp_path):
    assert run_training(tmp_path / "whole", stop=None) == 0
    whole = load_saes(tmp_path / "whole" / "saes")
    last = whole[1].cfg.metadata.n_tokens
    rng = random.Random(0)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        for stop in sorted(rng.sample(range(64, last, 64), 4)):
            assert run_training(folder, stop) == -9
        assert run_training(folder, stop=None) == 0
        resumed = load_saes(folder / "saes")
        for layer, sae in whole.items():
            assert all(torch.equal(sae.state_dict()[n], w) for n, w in resumed[layer].state_dict().items())


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [64, 320, 640, 1280, 1600])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_interrupted_training_goes_on_where_it_was(model, tmp_path, stop, architecture):
    design = replace(DESIGN, architecture=architecture)
    options = {**SMALL, "checkpoint": tmp_path / "state", "checkpoint_every": 320}
    seen = []

    def watch(log):
        seen.append(log.tokens)
        if log.tokens == stop and len(seen) == stop // 64:
            raise StoppedError

    whole = train_saes(model, rows_of(200), [1, 3], design, **SMALL)
    with pytest.raises(StoppedError):
        train_saes(model, rows_of(200), [1, 3], design, **options, progress=watch)
    resumed = train_saes(model, rows_of(200), [1, 3], design, **options, progress=watch)
    assert seen[stop // 64] == (stop - 1) // 320 * 320 + 64  # the step of the stop itself was not saved yet
    for layer, sae in whole.items():
        assert all(torch.equal(sae.state_dict()[n], w) for n, w in resumed[layer].state_dict().items())


def test_a_checkpoint_of_other_training_is_refused(model, tmp_path):
    options = {**SMALL, "checkpoint": tmp_path / "state", "checkpoint_every": 64}

    def stop(log):
        if log.tokens == 256:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_saes(model, rows_of(60), [1], DESIGN, **options, progress=stop)
    for rows, layers, design in [
        (rows_of(61), [1], DESIGN),
        (rows_of(60), [2], DESIGN),
        (rows_of(60), [1], replace(DESIGN, lr=1e-3)),
    ]:
        with pytest.raises(ValueError, match="is the checkpoint of other training"):
            train_saes(model, rows, layers, design, **options)
    assert set(train_saes(model, rows_of(60), [1], DESIGN, **options)) == {1}


# what is measured


def naive_loss(model, rows, layer=None, replace=None):
    """Summed next-token loss, row by row, with the residual after a block replaced at all but the first token."""

    def hook(module, args, output):  # noqa: ARG001
        resid = output[0] if isinstance(output, tuple) else output
        return torch.cat([resid[:, :1], replace(resid[:, 1:])], dim=1)

    handle = model.blocks[layer].register_forward_hook(hook) if replace is not None else None
    total = 0.0
    with torch.no_grad():
        for row in rows:
            said = model.hf(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
            total -= said.gather(-1, torch.tensor(row[1:])[:, None]).sum().item()
    if handle:
        handle.remove()
    return total


@pytest.mark.parametrize("batch_size", [3, 16])
def test_quality_is_what_a_plain_loop_gives(model, saes, batch_size):
    rows = rows_of(8)
    found = evaluate_saes(model, {layer: saes[layer] for layer in (0, 2)}, rows, batch_size=batch_size)
    clean = naive_loss(model, rows)
    for quality in found:
        assert isinstance(quality, Quality)
        sae = saes[quality.layer]
        x = torch.cat([hooks.read(model, pad([r], pad_token=0), [quality.layer])[quality.layer][0, 1:] for r in rows])
        acts = sae.encode(x)
        residue, spread = (x - sae.decode(acts)).square().sum(), (x - x.mean(0)).square().sum()
        spliced = naive_loss(model, rows, quality.layer, sae)
        ablated = naive_loss(model, rows, quality.layer, lambda r, mean=x.mean(0): mean.expand_as(r))
        assert quality.explained_variance == pytest.approx(1 - (residue / spread).item(), abs=1e-4)
        assert quality.l0 == pytest.approx((acts > 0).sum(-1).float().mean().item(), abs=0.05)
        np.testing.assert_allclose(quality.firing_rate, (acts > 0).float().mean(0), atol=0.01)
        assert quality.dead == (quality.firing_rate == 0).mean()
        assert quality.mean_norm == pytest.approx(x.norm(dim=-1).mean().item(), rel=1e-4)
        assert quality.loss_recovered == pytest.approx((ablated - spliced) / (ablated - clean), abs=1e-3)
        losses = (quality.loss_clean, quality.loss_spliced, quality.loss_mean_ablated)
        assert losses == pytest.approx([loss / len(x) for loss in (clean, spliced, ablated)], abs=1e-4)
        assert quality.n_tokens == len(x)


def made(W_enc, W_dec, b_dec, layer=2):
    sae = tiny_sae("standard", layer, d_sae=W_enc.shape[1])
    sae.W_enc.data, sae.W_dec.data, sae.b_dec.data, sae.b_enc.data = W_enc, W_dec, b_dec, torch.zeros(W_enc.shape[1])
    return {layer: sae}


def test_a_perfect_sae_recovers_all_and_an_empty_one_nothing(model):
    rows, eye = rows_of(20), torch.eye(32)
    (perfect,) = evaluate_saes(model, made(torch.cat([eye, -eye], 1), torch.cat([eye, -eye]), torch.zeros(32)), rows)
    assert perfect.explained_variance == pytest.approx(1, abs=1e-6) and perfect.dead == 0
    assert perfect.loss_recovered == pytest.approx(1, abs=1e-4) and perfect.l0 == pytest.approx(32)
    mean = torch.cat(
        [part[2] for part in Stream(model, rows, (2,), torch.float32, 8, 64, 0, model.device).activations()]
    ).mean(0)
    (empty,) = evaluate_saes(model, made(torch.zeros(32, 8), torch.zeros(8, 32), mean), rows)
    assert empty.explained_variance == pytest.approx(0, abs=1e-6) and (empty.l0, empty.dead) == (0, 1)
    assert empty.loss_recovered == pytest.approx(0, abs=1e-4)


def test_evaluation_reports_progress_and_refuses_rows_without_tokens(model, topk_saes):
    seen = []
    evaluate_saes(
        model, {1: topk_saes[1], 0: topk_saes[0]}, rows_of(9), batch_size=4, progress=lambda *p: seen.append(p)
    )
    assert seen[-1] == (15, 15) and [done for done, _ in seen] == sorted({done for done, _ in seen})
    for rows in ([], [[5], [6]]):
        with pytest.raises(ValueError, match="have no tokens to measure"):
            evaluate_saes(model, {1: topk_saes[1]}, rows)
    with pytest.raises(ValueError, match="reads layer 1; give it under that layer"):
        evaluate_saes(model, {2: topk_saes[1]}, rows_of(9))
