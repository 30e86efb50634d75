"""What search finds among real activations: nothing where nothing is, and what is planted.

The family is every feature of every SAE of the starter pack; the activations are those of SmolLM2-135M-Instruct on word
problems answered in steps and answered by the bare number, means over the answer's tokens, as `search` wrote them to
disk. A data set is 200 of those pairs; exchanging on and off within each of them at random makes every difference one
of chance. It goes to disk as a block, and from there through the functions that rank and test what a user searched for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plotly.graph_objects import Figure, Scatter
from scipy import stats as scipy_stats

import saereason as sr
from saereason.plots.look import BLUE, VERMILLION, framed
from saereason.search import Block, moments
from saereason.search.block import filled
from saereason.stats import benjamini_hochberg, benjamini_yekutieli, max_t
from saereason.tasks import problems, word_problems

LEVEL = 0.05
SIZES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PLANTED = 0.6
"""d_z at which a planted feature has to be found."""

OFTEN = 0.1
"""Share of pairs in which a feature has to differ at all for an effect to be planted in it."""


@dataclass(frozen=True)
class Draw:
    """How data sets are made of a block, and tested."""

    block: Block
    scratch: Path
    """Folder that each data set is written to."""

    n_pairs: int = 200
    n_permutations: int = 199


def real_block(folder: Path, n_pairs: int = 1000) -> Block:
    """The pairs of word problems with their gold answers, searched once and kept in `folder`."""
    if not folder.is_dir():
        model, saes = sr.load_model("smollm2-135m"), sr.load_saes("smollm2-135m")
        sr.search(model, saes, answered(model, n_pairs), block=folder)
    return Block.open(folder)


def answered(model: sr.Model, n_pairs: int) -> sr.Examples:
    """Each problem asked for steps and answered in steps, and asked for and answered by the bare number."""
    task = word_problems(problems(n_pairs, seed=0, split="discovery"))
    written = [
        [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        for texts in ([item.solution for item in task.items], [item.answer for item in task.items])
    ]
    asked = task.prompts(model, task.cot), task.prompts(model, task.direct)
    return sr.Examples.pair(model, *asked, written=(written[0], written[1]))


def null(draw: Draw, n_replicates: int) -> dict[str, float]:
    """Share of data sets of chance in which anything is discovered; whether one feature's p is uniform over them."""
    fixed = int(_often(draw.block).argmax())
    found, alone = {"": 0, "_bh": 0, "_by": 0}, {"permutation": [], "t": []}
    for seed in range(n_replicates):
        table, differences = _searched(draw, np.random.default_rng((11, seed)), seed=seed)
        analytic = 2 * scipy_stats.t.sf(table["size"], draw.n_pairs - 1)
        adjusted = {
            "": table["p_max_t"],
            "_bh": benjamini_hochberg(analytic),
            "_by": benjamini_yekutieli(analytic),
        }
        for name, p in adjusted.items():
            found[name] += bool((p <= LEVEL).any())
        alone["t"].append(analytic[fixed])
        alone["permutation"].append(max_t(differences[:, [fixed]], n_permutations=draw.n_permutations, seed=seed)[0])
    return {
        **{f"null_any_discovery{name}": count / n_replicates for name, count in found.items()},
        **{f"null_ks_{name}": float(scipy_stats.kstest(p, "uniform").pvalue) for name, p in alone.items()},
    }


@dataclass(frozen=True)
class Recall:
    """Of features planted with a true effect of `d_z`, the share that is ranked first, and the share discovered."""

    d_z: float
    first: float
    discovered: float


def planted(draw: Draw, n_seeds: int, sizes: Sequence[float] = SIZES, *, real: bool = False) -> Iterator[Recall]:
    """A feature drawn at random in each seed, with differences of chance plus a constant: d_z of their own deviation.

    So that the effect is known, that deviation is of all pairs of the block. The other features' differences are of
    chance too, or (`real`) what they are: large in many, so that the planted one need not be ranked first.
    """
    eligible = np.flatnonzero(_often(draw.block) >= OFTEN)
    for d_z in sizes:
        first, discovered = [], []
        for seed in range(n_seeds):
            rng = np.random.default_rng((13, seed))
            plant = int(rng.choice(eligible))
            table, _ = _searched(draw, rng, seed=seed, plant=plant, d_z=d_z, real=real)
            first.append(next(iter(table.top(1, "size"))) == next(iter(table.where([plant]))))
            discovered.append(table["p_max_t"][plant] <= LEVEL)
        yield Recall(d_z, float(np.mean(first)), float(np.mean(discovered)))


def _searched(
    draw: Draw,
    rng: np.random.Generator,
    *,
    seed: int,
    plant: int | None = None,
    d_z: float = 0.0,
    real: bool = False,
) -> tuple[sr.FeatureTable, np.ndarray]:
    """The table of a data set, with `size` (|studentised|) and `p_max_t`, and its differences."""
    values, features = draw.block.values, draw.block.features
    chosen = np.sort(rng.choice(len(values) // 2, size=draw.n_pairs, replace=False))
    on, off = values[2 * chosen], values[2 * chosen + 1]
    exchanged = (rng.random(draw.n_pairs) < 0.5)[:, None]
    if real:
        exchanged = exchanged & (np.arange(len(features)) == plant)
    on, off = np.where(exchanged, off, on), np.where(exchanged, on, off)
    if plant is not None:
        own = draw.block.differences[:, plant : plant + 1]
        on[:, plant] += d_z * np.sqrt(np.square(own).mean())
    with filled(draw.scratch, 2 * draw.n_pairs, features) as filling:
        rows = np.stack([np.repeat(np.arange(draw.n_pairs), 2), np.tile([1, 0], draw.n_pairs)], axis=1)
        filling.add(rows, np.stack([on, off], axis=1).reshape(2 * draw.n_pairs, -1))
    differences = Block.open(draw.scratch).differences[:, :]
    t = moments(torch.from_numpy(differences)).studentised.numpy()
    table = sr.FeatureTable({"layer": features[:, 0], "index": features[:, 1], "studentised": t, "size": np.abs(t)})
    return sr.add_max_t(table, draw.scratch, n_permutations=draw.n_permutations, seed=seed), differences


def _often(block: Block) -> np.ndarray:
    """Share of pairs in which each feature's activations differ."""
    parts = [(block.differences[:, columns] != 0).mean(axis=0) for columns, _ in block.chunks()]
    return np.concatenate(parts)


def plot_recall(found: Sequence[Recall], said: str) -> Figure:
    figure = Figure()
    for shown, name, colour in (("first", "ranked first", BLUE), ("discovered", "discovered", VERMILLION)):
        line = Scatter(x=[r.d_z for r in found], y=[getattr(r, shown) for r in found], name=name, mode="lines+markers")
        figure.add_trace(line.update(line_color=colour, hovertemplate="d_z %{x}: %{y:.0%}"))
    figure.update_xaxes(title_text="true standardised difference d_z")
    figure.update_yaxes(title_text="share of seeds", range=[-0.02, 1.02])
    return framed(figure, "How often a planted feature is found", said)
