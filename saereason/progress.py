"""Progress on the terminal: a bar a step, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 60.0
"""Seconds between two lines on a long step, where there is no terminal."""

Step = Callable[[int, int], None]
"""Takes the number done and the number in all."""


class Steps:
    """Named steps of a longer piece of work, each with a bar and its wall time."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A bar for as long as the block runs; time spent under one name adds up."""
        task, start = self._bars.add_task(name, total=None), perf_counter()
        told = start

        def show(done: int, total: int) -> None:
            nonlocal told
            self._bars.update(task, completed=done, total=total)
            if perf_counter() - told > EVERY and done < total:
                told = perf_counter()
                self._say(f"{name}: {done} of {total}, {told - start:.0f} s")

        try:
            yield show
        finally:
            spent = perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 1)
            self._bars.stop_task(task)
        shown = next(each.total for each in self._bars.tasks if each.id == task) or 1
        self._bars.update(task, completed=shown, total=shown)
        self._say(f"{name}: {spent:.1f} s")

    def _say(self, line: str) -> None:
        """A line where there is no terminal to draw bars on."""
        if not self._bars.console.is_terminal:
            self._bars.console.print(line, highlight=False, markup=False)


@contextmanager
def steps() -> Iterator[Steps]:
    """Bars on standard error, live on a terminal; elsewhere a line a step, and one a minute while it lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield Steps(bars)
