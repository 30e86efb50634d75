"""The texts of one training run: files and datasets, generated problems, and what the model itself writes."""

from collections.abc import Callable
from dataclasses import dataclass

from saereason.executors import inline, work_unit
from saereason.model import Model
from saereason.runs import Run
from saereason.tasks import problems, word_problems

from .sources import Framing, openings, own_rows, read_rows
from .texts import default_rows, mixed, problem_rows


@dataclass(frozen=True)
class Material:
    """What to train on; by default generated problems and plain English."""

    data: tuple[str, ...] = ()
    """Sources, as `read_rows` takes them."""

    problems: int = 0
    """Generated word problems, answered by turns in steps and directly."""

    own: int = 0
    """Continuations that the model itself writes, of CoT prompts of other problems and of openings of the data."""

    framing: Framing = Framing()  # noqa: RUF009  frozen

    def rows(
        self, model: Model, run: Run, *, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[list[int]]:
        """Everything mixed, in an order that the seed decides; the model's own writing is kept in the run."""
        kinds = [read_rows(model, source, self.framing) for source in self.data]
        prompts = openings(model, mixed(kinds, seed=seed), self.own // 2) if kinds else []
        if not kinds and not self.problems:
            kinds = [default_rows(model, seed=seed)]
        if self.problems:
            kinds.append(problem_rows(model, word_problems(problems(self.problems, seed=seed + 1, split="train"))))
        if self.own:
            asked = word_problems(problems(self.own - len(prompts), seed=seed + 2, split="train"))
            prompts += asked.prompts(model, asked.cot)
            unit = work_unit(model, "own", prompts=prompts, seed=seed)
            compute = lambda unit: [  # noqa: E731
                {"tokens": row} for row in own_rows(model, prompts, seed=seed, progress=progress)
            ]
            [(_, table)] = inline(run, [unit], compute)
            kinds.append([list(map(int, row)) for row in table["tokens"]])
        return mixed(kinds, seed=seed)
