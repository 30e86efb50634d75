"""Sparse autoencoders by layer: load, fetch, save, check; with `training/` the only place that knows SAELens."""

from .active import Active, Encoder
from .disk import check_folder, load_saes, save_saes
from .fetch import fetch_saes, saes_of
from .pack import save_pack
from .sae import (
    SAE,
    SAME,
    check_in_units_of_resid,
    check_rows,
    check_saes,
    check_serving,
    copies,
    decoder_cosines,
    decoder_row,
    decoder_rows,
    encode_changed,
    feature_acts,
    hashes,
    layer_of,
    sae_at,
    sae_hash,
    unit_of,
)

__all__ = [
    "SAE",
    "SAME",
    "Active",
    "Encoder",
    "check_folder",
    "check_in_units_of_resid",
    "check_rows",
    "check_saes",
    "check_serving",
    "copies",
    "decoder_cosines",
    "decoder_row",
    "decoder_rows",
    "encode_changed",
    "feature_acts",
    "fetch_saes",
    "hashes",
    "layer_of",
    "load_saes",
    "sae_at",
    "sae_hash",
    "saes_of",
    "save_pack",
    "save_saes",
    "unit_of",
]
