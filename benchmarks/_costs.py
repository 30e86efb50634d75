"""What saereason's training costs by number of layers and width, and where the time goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from plotly.graph_objects import Bar, Figure
from plotly.subplots import make_subplots

import saereason as sr
from saereason.plots.look import BLUE, INK, VERMILLION, framed

from ._sides import Reads, Work, step, stream_of, timed_reads, trainees_of


@dataclass(frozen=True)
class Cost:
    """Milliseconds for 1,000 trained tokens."""

    n_layers: int
    d_sae: int
    forward: float
    buffer: float
    """Copying into the buffer, and shuffling."""

    step: float

    @property
    def total(self) -> float:
        return self.forward + self.buffer + self.step


@dataclass(frozen=True)
class Forward:
    """The block matrices against the machine, in GFLOP/s."""

    matrices: float
    """Multiplications with the weights of the blocks that ran, over the whole time of the forward pass."""

    gemm: float
    """One large product in the same precision."""


def costs_by_size(model: sr.Model, rows: Sequence[Sequence[int]], work: Work) -> Iterator[Cost]:
    """Every number of layers with every width. Layers are spread evenly up to the last, so all forwards are whole."""
    for count in work.counts:
        layers = tuple((n + 1) * model.n_layers // count - 1 for n in range(count))
        yield from costs_of(model, rows, layers, work.widths, work)[0]


def costs_of(
    model: sr.Model, rows: Sequence[Sequence[int]], layers: tuple[int, ...], widths: Sequence[int], work: Work
) -> tuple[list[Cost], Forward]:
    """One buffer to warm up and one on the clock; then, for each width, a few steps on its last batch."""
    batches = stream_of(model, rows, layers, work).batches()
    for _ in range(work.window):
        next(batches)
    with timed_reads() as reads:
        start = perf_counter()
        for _ in range(work.window):
            batch = next(batches)
        spent = perf_counter() - start
    kilo = work.window * work.batch_size / 1_000
    forward, buffer = 1_000 * reads.seconds / kilo, 1_000 * (spent - reads.seconds) / kilo
    found = []
    for d_sae in widths:
        trainees = trainees_of(model, batch, work.design(d_sae))
        step(trainees, {layer: x[: len(x) // 8] for layer, x in batch.items()})  # the optimisers make their state
        times = []
        for _ in range(max(1, 3 // len(layers))):
            start = perf_counter()
            step(trainees, batch)
            times.append(perf_counter() - start)
        found.append(Cost(len(layers), d_sae, forward, buffer, 1e6 * median(times) / work.batch_size))
        del trainees
    return found, Forward(_matrix_rate(model, max(layers), reads), gemm_rate(model.dtype))


def _matrix_rate(model: sr.Model, last: int, reads: Reads) -> float:
    """GFLOP/s that the weight matrices of the blocks up to `last` account for."""
    linear = [m for block in model.blocks[: last + 1] for m in block.modules() if isinstance(m, torch.nn.Linear)]
    return 2 * sum(m.weight.numel() for m in linear) * reads.tokens / reads.seconds / 1e9


def gemm_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """GFLOP/s of the fastest of ten products of two square matrices."""
    a, times = torch.randn(size, size).to(dtype), []
    for _ in range(10):
        start = perf_counter()
        torch.mm(a, a)
        times.append(perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def table(costs: Sequence[Cost]) -> str:
    """A line for each cost under a heading; milliseconds for 1,000 tokens."""
    lines = ["layers   d_sae  forward   buffer     step    total  tokens/s"]
    for c in costs:
        shares = "".join(f"{value:9.1f}" for value in (c.forward, c.buffer, c.step, c.total))
        lines.append(f"{c.n_layers:6d}{c.d_sae:8,d}{shares}{1e6 / c.total:10.0f}")
    return "\n".join(lines)


def plot_costs(costs: Sequence[Cost], said: str) -> Figure:
    """Milliseconds for 1,000 tokens by number of layers, a panel for each width."""
    widths = list(dict.fromkeys(c.d_sae for c in costs))
    titles = [f"d_sae {d_sae:,}" for d_sae in widths]
    figure = make_subplots(rows=len(widths), cols=1, shared_xaxes=True, vertical_spacing=0.08, subplot_titles=titles)
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, d_sae in enumerate(widths, 1):
        there = [c for c in costs if c.d_sae == d_sae]
        for part, colour in (("forward", BLUE), ("buffer", INK), ("step", VERMILLION)):
            bar = Bar(x=[str(c.n_layers) for c in there], y=[getattr(c, part) for c in there], name=part)
            bar.update(marker_color=colour, showlegend=row == 1, hovertemplate="%{x} layers: %{y:.0f} ms")
            figure.add_trace(bar, row, 1)
        figure.update_yaxes(title_text="ms" if row > 1 else "ms for 1,000 tokens", row=row, col=1)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    figure.update_xaxes(title_text="layers trained at once", row=len(widths), col=1)
    return framed(figure, "What training costs", said, height=200 * len(widths) + 60)
