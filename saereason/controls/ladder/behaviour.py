"""A behaviour that a feature is claimed to stand for, and all that it takes to doubt the claim."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from saereason.effects import Trial
from saereason.examples import Examples
from saereason.model import Rendered
from saereason.steering import LastPromptToken, When

TRIALS = ("rehearsal", "practice", "absent", "instructed", "present", "task")
"""The fields of a behaviour that are trials."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Examples, with an id for each of their groups."""

    examples: Examples
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        n = self.examples.n_groups
        if len(set(self.ids)) != len(self.ids) or len(self.ids) != n:
            raise ValueError(f"the examples are of {n} prompts with {len(set(self.ids))} different ids; give each one.")


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What is claimed, where it shows and where it does not.

    Discovery and confirmation share no prompt. What is left out leaves rungs of the ladder untried, and a feature does
    not climb past those.
    """

    name: str
    discovery: Sample
    """Features and sizes are chosen on this."""

    confirmation: Sample
    showing: tuple[str | Rendered, ...]
    """Texts in which the behaviour shows, whose tokens may be all there is to a feature."""

    plain: tuple[str | Rendered, ...]
    """Ordinary texts, in which it does not."""

    matched: Sample | None = None
    """Texts with and without the behaviour, alike in length and format."""

    paraphrases: tuple[str | Rendered, ...] = ()
    """Texts in which it shows in other words."""

    rehearsal: Trial | None = None
    """Discovery's prompts, on which the behaviour does not show of itself: sizes are tried on them."""

    practice: Trial | None = None
    """Discovery's prompts asked for the behaviour, judged by the task: what is written after them proposes features."""

    absent: Trial | None = None
    """Confirmation's prompts of the same kind: does steering bring the behaviour about?"""

    instructed: Trial | None = None
    """The prompts of `absent`, asked for the behaviour in words."""

    present: Trial | None = None
    """Prompts on which it shows: does ablation take it away?"""

    task: Trial | None = None
    """What the behaviour may help or harm, if that is more than the behaviour itself."""

    when: When = LastPromptToken()  # noqa: RUF009  frozen
    """Where steering acts; ablation acts everywhere."""

    def __post_init__(self) -> None:
        said = [
            {*self.discovery.ids, *(i for trial in (self.rehearsal, self.practice) if trial for i in trial.ids)},
            {
                *self.confirmation.ids,
                *(i for trial in (self.absent, self.present, self.task) if trial for i in trial.ids),
            },
        ]
        shared = sorted(said[0] & said[1])
        if shared:
            raise ValueError(
                f"{shared[0]} is in discovery and in confirmation; what a feature is chosen on cannot confirm it."
            )
        chosen_on, confirming = (
            {tuple(row.tolist()) for row in _texts(s)} for s in (self.discovery, self.confirmation)
        )
        if (n_both := len(chosen_on & confirming)) > len(confirming) / 2:
            raise ValueError(
                f"{n_both} of {len(confirming)} texts of confirmation are discovery's, under other "
                "ids; what a feature is chosen on cannot confirm it."
            )
        lone = [name for name in TRIALS if (trial := getattr(self, name)) is not None and len(trial) < 2]
        if lone:
            raise ValueError(
                f"the trial `{lone[0]}` has one prompt, which tells nothing of the spread; give two or more."
            )
        if self.absent is not None and self.rehearsal is None:
            raise ValueError("there are prompts to steer on but none to rehearse on; give discovery prompts too.")
        if self.instructed is not None and (self.absent is None or self.instructed.ids != self.absent.ids):
            raise ValueError("the instructed prompts are not those of `absent`; give the same items in the same order.")


def _texts(sample: Sample) -> Iterator[Tensor]:
    """The token ids of each row, without its padding."""
    examples = sample.examples
    return (tokens[mask] for tokens, mask in zip(examples.tokens, examples.mask, strict=True))
