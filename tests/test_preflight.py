"""An SAE serves the model, layer and way of beginning a text that it was made for, and no other."""

import copy
import warnings

import pytest
import torch
from conftest import tiny_model, tiny_sae, tiny_tokenizer

from saereason import Design, evaluate_saes, load_saes, preflight, random_copy, save_saes, train_saes
from saereason.model import Model
from saereason.saes import check_saes
from saereason.training.texts import plain_rows, plain_texts


def with_card(sae, **changes):
    """A copy of an SAE whose card says otherwise."""
    sae = copy.deepcopy(sae)
    for key, value in changes.items():
        sae.cfg.metadata[key] = value
    return sae


def figures(sae, **changes):
    return with_card(sae, quality={**sae.cfg.metadata.quality, **changes})


def scaled(sae, name, factor):
    sae = copy.deepcopy(sae)
    getattr(sae, name).data *= factor
    return sae


def shuffled(sae):
    sae, order = copy.deepcopy(sae), torch.randperm(len(sae.W_dec), generator=torch.Generator().manual_seed(0))
    sae.W_enc.data, sae.b_enc.data, sae.W_dec.data = sae.W_enc[:, order], sae.b_enc[order], sae.W_dec[order]
    return sae


@pytest.fixture(scope="module")
def trained(model):
    """SAEs of two layers, with figures on their cards from text of the same kind that they were not trained on."""
    rows = plain_rows(model, plain_texts()[:130])
    options = {"batch_size": 64, "buffer_tokens": 2048}
    saes = train_saes(model, rows[30:], [0, 3], Design(d_sae=64, k=8), **options)
    for quality in evaluate_saes(model, saes, rows[:30]):
        card = saes[quality.layer].cfg.metadata
        card["quality"] = {k: v for k, v in vars(quality).items() if k not in ("layer", "firing_rate")}
        card["prepend_bos"] = False
    return saes


def test_saes_fit_the_model_they_were_trained_on(model, trained, tmp_path):
    for saes in (trained, load_saes(save_saes(trained, tmp_path / "saes"))):
        fits = preflight(model, saes)
        assert [(fit.layer, fit.fits, fit.notes) for fit in fits] == [(0, True, ()), (3, True, ())]
        for fit in fits:
            card = trained[fit.layer].cfg.metadata.quality
            assert (fit.card_explained_variance, fit.card_l0) == (card["explained_variance"], card["l0"])
            assert fit.explained_variance == pytest.approx(fit.card_explained_variance, abs=0.1)
            assert fit.mean_norm == pytest.approx(fit.card_mean_norm, rel=0.1) and fit.n_tokens > 500


def test_the_figures_are_those_of_the_evaluation(model, trained):
    rows = plain_rows(model, plain_texts()[200:210])
    for fit, quality in zip(preflight(model, trained, rows), evaluate_saes(model, trained, rows), strict=True):
        assert fit.explained_variance == pytest.approx(quality.explained_variance, abs=1e-6)
        assert (fit.l0, fit.mean_norm, fit.n_tokens) == (quality.l0, quality.mean_norm, quality.n_tokens)


def test_the_order_of_features_does_not_matter(model, trained):
    assert all(fit.fits for fit in preflight(model, {layer: shuffled(sae) for layer, sae in trained.items()}))


def elsewhere(trained):
    """The SAE of layer 0, put in layer 3's place with all it says of itself."""
    sae = copy.deepcopy(trained[0])
    sae.cfg.metadata["hook_name"] = "blocks.3.hook_resid_post"
    return sae


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (elsewhere, r"of the variance here.*on its card|mean norm of the residual stream is"),
        (lambda saes: scaled(saes[3], "W_enc", 2), r"it explains -?0\.\d+ of the variance here"),
        (lambda saes: scaled(saes[3], "W_dec", 2), r"it explains -?0\.\d+ of the variance here"),
        (lambda saes: scaled(saes[3], "W_dec", 0), r"it explains -?0\.\d+ of the variance here, no more than the mean"),
        (lambda saes: figures(saes[3], mean_norm=0.1), r"mean norm of the residual stream is [\d.]+ here and 0.1 on"),
        (lambda saes: figures(saes[3], l0=30.0), r"\(L0\) is [\d.]+ here and 30 on its card"),
        (lambda saes: with_card(saes[3], prepend_bos=True), "says that texts begin with BOS, and none does here"),
    ],
)
def test_an_sae_that_does_not_belong_is_refused(model, trained, change, says):
    saes = {3: change(trained)}
    with pytest.raises(ValueError, match=rf"the SAE at layer 3 does not fit tiny-llama: .*{says}"):
        preflight(model, saes)
    (fit,) = preflight(model, saes, strict=False)
    assert not fit.fits and fit.notes


def test_an_sae_does_not_fit_a_model_with_random_weights(model, trained):
    for layer, sae in trained.items():
        with pytest.raises(ValueError, match=f"layer {layer} does not fit tiny-llama with random weights"):
            preflight(random_copy(model, seed=3), {layer: sae})


def test_weights_that_differ_a_little_are_a_note_and_no_warning(trained):
    taught = tiny_model()
    taught.hf.model.layers[1].mlp.up_proj.weight.data *= 1.02
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = preflight(taught, trained)
    for fit in fits:
        assert fit.fits and fit.notes[0].startswith("It was trained on weights")
        assert taught.hash in fit.notes[0] and trained[fit.layer].cfg.metadata.model_hash in fit.notes[0]
    with pytest.warns(UserWarning, match="was trained on weights"):  # a note is not the warning of what comes after
        check_saes(taught, trained)


def test_a_figure_that_is_somewhat_off_is_a_note_with_both_numbers(model, trained):
    (fit,) = preflight(model, {3: figures(trained[3], l0=14.0, explained_variance=0.99)})
    assert fit.fits and len(fit.notes) == 2
    assert "0.99" in fit.notes[0] and f"{fit.explained_variance:.3f}" in fit.notes[0]
    assert "14" in fit.notes[1] and f"{fit.l0:.3g}" in fit.notes[1]


@pytest.mark.parametrize("quality", [None, {}, "good", {"explained_variance": "high", "l0": float("nan")}, [0.9]])
def test_without_figures_on_the_card_only_the_absolute_rule_holds(model, trained, quality):
    (fit,) = preflight(model, {3: with_card(trained[3], quality=quality, prepend_bos=None)})
    assert fit.fits and fit.notes == ("Its card gives no figures, so only what it explains here was judged.",)
    assert (fit.card_explained_variance, fit.card_l0, fit.card_mean_norm) == (None, None, None)
    with pytest.raises(ValueError, match="no more than the mean of the tokens would"):
        preflight(model, {3: tiny_sae("topk", 3)})


def bos_tokenizer():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    return tokenizer


def test_how_texts_begin_is_held_against_the_card(model, trained):
    puts = Model(model.hf, bos_tokenizer(), model.name)
    assert puts.encode("a")[0] == 1 != model.encode("a")[0]
    with pytest.raises(ValueError, match="texts begin without BOS, and the tokenizer puts it there"):
        preflight(puts, {3: trained[3]})
    assert preflight(puts, {3: with_card(trained[3], prepend_bos=True)})[0].fits
    rows = plain_rows(model, plain_texts()[:10])
    assert preflight(puts, {3: trained[3]}, rows)[0].fits
    assert preflight(model, {3: with_card(trained[3], prepend_bos=True)}, [[1, *row] for row in rows])[0].fits


def test_what_cannot_serve_at_all_is_refused(model, trained):
    for strict in (True, False):
        with pytest.raises(ValueError, match="is for d_model 48 and tiny-llama has 32"):
            preflight(model, {3: tiny_sae("topk", 3, d_in=48)}, strict=strict)
        with pytest.raises(ValueError, match="the SAE given for layer 2 reads layer 3"):
            preflight(model, {2: trained[3]}, strict=strict)
        with pytest.raises(ValueError, match="have no tokens to measure"):
            preflight(model, trained, [[5], []], strict=strict)
        with pytest.raises(ValueError, match="it explains nan of the variance here"):
            preflight(model, trained, [[5, 6]] * 4)
