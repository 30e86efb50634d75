"""Sparse autoencoders by layer: load, fetch, save, check; with `training/` the only place that knows SAELens."""

from .active import Active, Encoder
from .disk import check_folder, load_saes, save_saes
from .fetch import fetch_saes
from .pack import save_pack
from .sae import SAE, check_saes, decoder_cosines, decoder_row, feature_acts, hashes, layer_of, sae_at, sae_hash

__all__ = [
    "SAE",
    "Active",
    "Encoder",
    "check_folder",
    "check_saes",
    "decoder_cosines",
    "decoder_row",
    "feature_acts",
    "fetch_saes",
    "hashes",
    "layer_of",
    "load_saes",
    "sae_at",
    "sae_hash",
    "save_pack",
    "save_saes",
]
