"""How good an SAE is, against SAELens's own evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from saereason import evaluate_saes, hooks
from saereason.model import Batch
from saereason.quality import firing_rates

BOS = 1


def saelens_evals(model, sae, tokens):
    """What `sae_lens.evals.run_evals` says of an SAE on these tokens, on a TransformerBridge over the model."""
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    store = SimpleNamespace(
        context_size=tokens.shape[1],
        store_batch_size_prompts=len(tokens),
        get_batch_tokens=lambda n: tokens,
        reset_input_dataset=lambda: None,
    )
    config = get_eval_everything_config(n_eval_reconstruction_batches=1, n_eval_sparsity_variance_batches=1)
    scalars, by_feature = run_evals(sae, store, model.bridge(), ActivationScaler(), config)
    return {name: value for group in scalars.values() for name, value in group.items()}, by_feature


@torch.no_grad()
def losses(model, tokens, layer=None, resid=None):
    """Next-token loss of every token but the first, `[batch, pos - 1]`; resumed after a layer if one is given."""
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    if layer is None:
        logits = hooks.run(model, batch, use_cache=False).logits
    else:
        with hooks.resumed(model, layer, resid):
            logits = hooks.run(model, batch, use_cache=False).logits
    return cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_saelens_evaluates_the_same(any_model, saes, layer):
    """On rows that begin with BOS and hold no other special token, SAELens's figures are ours.

    It leaves BOS out of L0, explained variance (its `explained_variance`; `explained_variance_legacy` is a mean of
    ratios by token, which we do not report) and the splice, as we leave out the first token of a text. Its losses leave
    out what is predicted *from* BOS, which no splice changes: ours count it, so it is taken away here. Its ablation is
    of everything, BOS with it, to zero, where ours is to the mean, so `ce_loss_score` and our `loss_recovered` differ;
    that score is computed here from our pieces.
    """
    sae = saes[layer]
    tokens = torch.randint(4, 100, (6, 20), generator=torch.Generator().manual_seed(layer))
    tokens[:, 0] = BOS
    theirs, by_feature = saelens_evals(any_model, sae, tokens)
    (ours,) = evaluate_saes(any_model, {layer: sae}, tokens.tolist())
    near = {"rel": 1e-3, "abs": 1e-3}
    assert ours.l0 == pytest.approx(theirs["l0"], **near)
    assert ours.explained_variance == pytest.approx(theirs["explained_variance"], **near)
    assert ours.mean_norm == pytest.approx(theirs["l2_norm_in"], **near)
    np.testing.assert_allclose(ours.firing_rate, by_feature["feature_density"], atol=1e-3)

    first = losses(any_model, tokens)[:, 0].sum().item()
    n, n_theirs = tokens[:, 1:].numel(), tokens[:, 2:].numel()
    clean, spliced = ((loss * n - first) / n_theirs for loss in (ours.loss_clean, ours.loss_spliced))
    zero = losses(any_model, tokens, layer, torch.zeros(6, 20, 32))[:, 1:].mean().item()
    assert clean == pytest.approx(theirs["ce_loss_without_sae"], **near)
    assert spliced == pytest.approx(theirs["ce_loss_with_sae"], **near)
    assert zero == pytest.approx(theirs["ce_loss_with_ablation"], **near)
    assert (zero - spliced) / (zero - clean) == pytest.approx(theirs["ce_loss_score"], **near)
    assert theirs["kl_div_with_sae"] > 0.05  # a bridge skips a hook name it does not know in silence


def test_firing_rates_are_those_of_the_evaluation(model, topk_saes):
    rows = [model.encode(text) for text in ("Tom has 3 apples.", "2 + 2 =", "How many birds are there?")]
    rates = firing_rates(model, topk_saes, rows, batch_size=2)
    for quality in evaluate_saes(model, topk_saes, rows):
        np.testing.assert_allclose(rates[quality.layer], quality.firing_rate, atol=1e-9)
    with pytest.raises(ValueError, match="no tokens to measure"):
        firing_rates(model, topk_saes, [[5]])
