"""What the demo runs on, and how much of it."""

from dataclasses import dataclass
from pathlib import Path

from saereason.tasks import COT, DIRECT


@dataclass(frozen=True)
class Sizes:
    """How much work the demo does; the defaults take minutes on two cores with bfloat16, half an hour without."""

    n_discovery: int = 96
    n_scored: int = 16
    """Discovery problems on which candidates are scored."""

    n_confirmation: int = 100
    n_per_layer: int = 4
    """Candidate features a layer."""

    multiples: tuple[float, ...] = (1.0, 2.0)
    """Coefficients tried for each, in units of the DiffMean norm at its layer."""

    n_draws: int = 10
    """Random features, and random directions."""

    n_problem_texts: int = 1000
    n_evaluation_rows: int = 24
    d_sae: int = 4608
    k: int = 32
    n_reasoning: int = 24
    n_knowledge: int = 60
    n_neutral: int = 12
    max_new_tokens: int = 96


QUICK = Sizes(
    n_discovery=16,
    n_scored=6,
    n_confirmation=10,
    n_per_layer=2,
    multiples=(2.0,),
    n_draws=2,
    n_problem_texts=120,
    n_evaluation_rows=16,
    d_sae=1024,
    n_reasoning=6,
    n_knowledge=12,
    n_neutral=4,
)
"""A look at how the demo works, not at what it finds."""


@dataclass(frozen=True)
class Settings:
    """The demo of the shipped taught model, or the same story on a model and a task of the user's own."""

    out: Path = Path("runs/demo")
    model: str = "smollm2-135m"
    gguf: Path | None = None
    adapter: str | None = "taught"
    task: Path | None = None
    direct: str = DIRECT
    cot: str = COT
    layers: tuple[int, ...] = (9, 14, 19, 24)
    seed: int = 0
    sizes: Sizes = Sizes()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")

    @property
    def own(self) -> bool:
        """True for a model or task of the user's own, about which nothing was taught."""
        return (self.task, self.gguf, self.adapter, self.model) != (None, None, "taught", "smollm2-135m")
