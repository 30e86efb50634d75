"""The two sides of the training benchmark: all that touches Stream and Trainee, or SAELens, is here."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from time import perf_counter
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import saereason as sr
from saereason.hooks import read
from saereason.machine import fast_dtype
from saereason.training import default_rows
from saereason.training import stream as stream_module
from saereason.training.stream import Acts, Stream
from saereason.training.trainee import Trainee

DEAD_STEPS = 1_000
"""SAELens's `dead_feature_window`: steps without firing after which a feature joins the auxiliary loss."""


@dataclass(frozen=True)
class Work:
    """What every side has to do. A round is `window` batches, which is also what a buffer holds."""

    layers: tuple[int, ...] = (4, 8, 12, 16, 20, 24)
    d_sae: int = 4608
    k: int = 32
    lr: float = 1e-3
    length: int = 128
    """Token ids in a row; the activation of the first is left out on every side."""

    batch_size: int = 4096
    window: int = 2
    rounds: int = 12
    """Rounds on the clock; one more comes before, to warm up."""

    n_problems: int = 2400
    n_held_out: int = 192
    counts: tuple[int, ...] = (1, 2, 6, 12, 30)
    """Numbers of layers whose cost is measured."""

    widths: tuple[int, ...] = (2048, 4096, 16384)

    @property
    def n_steps(self) -> int:
        return (self.rounds + 1) * self.window

    def design(self, d_sae: int | None = None) -> sr.Design:
        return sr.Design(d_sae=d_sae or self.d_sae, k=self.k, lr=self.lr, dead_after=DEAD_STEPS * self.batch_size)

    def rows(self, model: sr.Model) -> tuple[list[list[int]], list[list[int]]]:
        """The default texts end to end, cut into rows of one length: to train on, and held out.

        Raises ValueError if they are too few for every token to be trained on once.
        """
        ids = list(chain.from_iterable(default_rows(model, n_problems=self.n_problems)))
        rows = [ids[n : n + self.length] for n in range(0, len(ids) - self.length + 1, self.length)]
        needed = (self.n_steps + 2 * self.window) * self.batch_size
        there = (len(rows) - self.n_held_out) * (self.length - 1)
        if there < needed:
            raise ValueError(f"the texts have {there} tokens and the benchmark needs {needed}; raise `n_problems`.")
        return rows[: -self.n_held_out], rows[-self.n_held_out :]

    def rates(self) -> list[float]:
        """The learning rate of every step as a share of `lr`: SAELens's own schedule, which both sides follow."""
        from sae_lens.training.optim import get_lr_scheduler

        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        shape = {"lr": 1.0, "lr_end": 0.1, "num_cycles": 1, "training_steps": self.n_steps}
        scheduler = get_lr_scheduler("constant", optimiser, **shape, **self.ramps("warm_up_steps", "decay_steps"))
        found = []
        for _ in range(self.n_steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
        return found

    def ramps(self, warm_up: str, decay: str) -> dict[str, int]:
        """Steps of linear warm-up and of linear decay, under the names asked for."""
        return {warm_up: max(2, self.n_steps // 20), decay: 3 * self.n_steps // 10}


@dataclass(frozen=True, eq=False)
class Side:
    """One way to train the same SAEs: a round of it, and what comes out."""

    train: Callable[[], int]
    """Trains one round; returns its tokens."""

    finish: Callable[[], dict[int, Any]]
    """The SAEs by layer, which read the residual stream in its own units."""

    losses: list[float]
    """Squared error after each round, of the deepest layer's last batch (scaled to a mean norm of √d_model)."""


def stream_of(model: sr.Model, rows: Sequence[Sequence[int]], layers: tuple[int, ...], work: Work) -> Stream:
    dtype = torch.bfloat16 if fast_dtype(model.device) == torch.bfloat16 else torch.float32
    return Stream(model, rows, layers, dtype, work.batch_size, work.window * work.batch_size, 0, model.device)


def trainees_of(model: sr.Model, first: Acts, design: sr.Design) -> dict[int, Trainee]:
    """An SAE for each layer that has looked at its first activations."""
    trainees = {layer: Trainee(model, layer, design, model.device) for layer in first}
    for layer, trainee in trainees.items():
        trainee.look(first[layer])
    return trainees


def step(trainees: Mapping[int, Trainee], batch: Acts, rate: float = 1.0, done: float = 0.5) -> None:
    for layer, trainee in trainees.items():
        trainee.step(batch[layer], rate, done)


@dataclass
class Reads:
    """Time in forward passes, seconds, and the tokens that went through."""

    seconds: float = 0.0
    tokens: int = 0


@contextlib.contextmanager
def timed_reads() -> Iterator[Reads]:
    """Within the block, what streams spend in forward passes."""
    spent = Reads()

    def timed(model: sr.Model, batch: Any, layers: Sequence[int]) -> dict[int, Tensor]:
        start = perf_counter()
        found = read(model, batch, layers)
        spent.seconds += perf_counter() - start
        spent.tokens += int(batch.mask.sum())
        return found

    with mock.patch.object(stream_module, "read", timed):
        yield spent


def ours(model: sr.Model, rows: Sequence[Sequence[int]], work: Work) -> Side:
    stream = stream_of(model, rows, work.layers, work)
    trainees = trainees_of(model, next(stream.windows())[1], work.design())
    batches, rates, losses = stream.batches(), iter(enumerate(work.rates())), []

    def train() -> int:
        for _ in range(work.window):
            n, rate = next(rates)
            step(trainees, next(batches), rate, n / work.n_steps)
        losses.append(trainees[work.layers[-1]].mse)
        return work.window * work.batch_size

    return Side(train, lambda: {layer: trainee.finish({}) for layer, trainee in trainees.items()}, losses)


def load_as_saelens(name: str) -> sr.Model:
    """The model in float32, without what saereason asks of the C library's memory."""
    with mock.patch("saereason.loading.keep_memory"):
        return sr.load_model(name, dtype="float32")


def theirs(model: sr.Model, rows: Sequence[Sequence[int]], work: Work, *, best: bool) -> Side:
    """SAELens's runner, its trainers stepped as `MultiSAETrainer.fit` does, so that a round can be timed.

    Buffers are of one size on both sides. SAELens reads on after each half of it, twice a round; saereason once.
    """
    import sae_lens as lens
    from datasets import Dataset
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    paths = {id(module): path for path, module in model.hf.named_modules()}
    hooks = {str(layer): paths[id(model.blocks[layer])] for layer in work.layers}
    saes = {name: work.design().draw(model, int(name), model.device) for name in hooks}
    for sae in saes.values():
        sae.cfg.normalize_activations = "expected_average_only_in"
    settings = lens.MultiSAETrainingRunnerConfig(
        saes={name: sae.cfg for name, sae in saes.items()}, hook_names=hooks, **_settings(work, best=best)
    )
    proxy = HookedProxyLM(model.hf, model.tokenizer, hook_names=list(hooks.values()))
    tokens = Dataset.from_dict({"tokens": list(rows)})
    runner = lens.MultiSAETrainingRunner(settings, tokens, proxy, saes)
    loader = runner.activations_store.get_multi_hook_data_loader()
    first = [next(loader)]
    trainers = MultiSAETrainer(settings.to_sae_trainer_config(), saes, hooks, loader).trainers
    for name, each in trainers.items():
        x, scaler = first[0][hooks[name]], each.activation_scaler
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            scaler.estimate_scaling_factor(model.d_model, iter([x]), 1)
        saes[name].b_dec.data = scaler(x).float().mean(0)
    losses: list[float] = []

    def train() -> int:
        for _ in range(work.window):
            batch = first.pop() if first else next(loader)
            for name, each in trainers.items():
                output = each.step(batch[hooks[name]])
                each.n_training_steps += 1
        losses.append(output.losses["mse_loss"].item())
        return work.window * work.batch_size

    def finish() -> dict[int, Any]:
        for name, each in trainers.items():
            saes[name].fold_activation_norm_scaling_factor(each.activation_scaler.scaling_factor)
        return {int(name): sae.eval() for name, sae in saes.items()}

    return Side(train, finish, losses)


def _settings(work: Work, *, best: bool) -> dict[str, Any]:
    from sae_lens.config import LoggingConfig

    return {
        "model_class_name": "AutoModelForCausalLM",
        "streaming": False,
        "prepend_bos": False,
        "context_size": work.length,
        "seqpos_slice": (1, None),
        "store_batch_size_prompts": work.batch_size // work.length,  # 32, the default
        "n_batches_in_buffer": -(-work.window * work.batch_size // (work.length - 1)),  # counted in rows, in fact
        "training_tokens": work.n_steps * work.batch_size,
        "train_batch_size_tokens": work.batch_size,
        "dead_feature_window": DEAD_STEPS,
        "lr": work.lr,
        **work.ramps("lr_warm_up_steps", "lr_decay_steps"),
        "autocast": best,
        "autocast_lm": best,
        "checkpoint_path": None,
        "output_path": None,
        "logger": LoggingConfig(log_to_wandb=False),
    }
