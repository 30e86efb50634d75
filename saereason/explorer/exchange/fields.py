"""What Neuronpedia and SAEDashboard say of a feature in the same words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .dashboard import Dashboard, Excerpt
from .lines import number, numbers, paired, texts

UNSAID = {
    f"{what}_{value}": []
    for what, third in (("neuron_alignment", "values"), ("correlated_neurons", "pearson"))
    for value in ("indices", third, "l1")
}
"""Fields that the programs want and that saereason does not measure."""


def figures_said(dashboard: Dashboard) -> dict[str, Any]:
    """The logits, the rate and the two histograms as these programs name them."""
    return {
        **UNSAID,
        **_split("neg_str", "neg_values", dashboard.lowered),
        **_split("pos_str", "pos_values", dashboard.raised),
        "frac_nonzero": dashboard.firing_rate,
        **_split("freq_hist_data_bar_values", "freq_hist_data_bar_heights", dashboard.density),
        **_split("logits_hist_data_bar_values", "logits_hist_data_bar_heights", dashboard.logits),
        "decoder_weights_dist": [],
    }


def figures_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Dashboard` that `figures_said` writes. Raises ValueError for lists that do not fit."""

    def bars(name: str) -> tuple[tuple[float, float], ...]:
        middles = numbers(said, f"{name}_data_bar_values")
        return paired(middles, numbers(said, f"{name}_data_bar_heights"), f"{name}_data_bar_values")

    return {
        "lowered": paired(texts(said, "neg_str"), numbers(said, "neg_values"), "neg_str"),
        "raised": paired(texts(said, "pos_str"), numbers(said, "pos_values"), "pos_str"),
        "firing_rate": number(said, "frac_nonzero"),
        "density": bars("freq_hist"),
        "logits": bars("logits_hist"),
    }


def bins_said(excerpt: Excerpt, dashboard: Dashboard) -> tuple[float, float | None, float]:
    """Of the bin that an excerpt is from: least, most and share, as SAEDashboard has it.

    The strongest are from -1 to the largest activation, and their share is -1.
    """
    return (-1.0, dashboard.max_act, -1.0) if excerpt.band is None else excerpt.band


def band_of(low: float | None, high: float | None, share: float | None) -> tuple[float, float, float] | None:
    """The band that a bin is: none for the strongest, for bins that are not told, and for SAEDashboard's 0, 0, 0."""
    if low is None or high is None or share is None or share < 0 or (low, high, share) == (0, 0, 0):
        return None
    return low, high, share


def check_replaceable(folder: Path, ours: Sequence[str]) -> None:
    """Raises ValueError where a folder that will be replaced holds what saereason did not put there."""
    there = [folder] if folder.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    if others := [path.name for path in there if not any(path.match(pattern) for pattern in ours)]:
        raise ValueError(f"{folder} holds {others[0]}, which would be lost; give another folder.")


def _split(keys: str, values: str, pairs: Sequence[tuple[Any, float]]) -> dict[str, list[Any]]:
    return {keys: [key for key, _ in pairs], values: [value for _, value in pairs]}
