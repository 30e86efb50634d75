"""What one rung of the ladder has shown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from saereason.stats import Estimate

ALPHA = 0.05

NAMES = {
    1: ("correlates", "does not correlate"),
    2: ("replicates", "does not replicate"),
    3: ("survives cues", "does not survive cues"),
    4: ("beats chance", "does not beat chance"),
    5: ("beats the cheap explanation", "does not beat the cheap explanation"),
    6: ("changes the task", "does not change the task"),
    7: ("is necessary", "is not necessary"),
    8: ("recurs in other SAEs", "does not recur in other SAEs"),
}
"""The rungs of the ladder in their order, climbed and not."""


@dataclass(frozen=True)
class Rung:
    """A rung, passed or not, or not tried where `passed` is None."""

    number: int
    passed: bool | None
    said: str
    """What was found, as a clause."""

    figure: Estimate | None = None
    unit: str = ""
    n: int = 0
    """Prompts or texts that the figure is of."""

    against: tuple[str, ...] = ()
    """The controls it was held against."""

    details: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Rung":
        """The rung that `json` gave."""
        told = json.loads(text)
        figure = Estimate(**told.pop("figure")) if told["figure"] else told.pop("figure")
        return cls(**told | {"figure": figure, "against": tuple(told["against"])})

    @property
    def json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def name(self) -> str:
        return NAMES[self.number][0]

    def __str__(self) -> str:
        mark = {True: "passed", False: "failed", None: "not tried"}[self.passed]
        return f"{self.number} {self.name}: {mark}; {self.said}"


def untried(number: int, why: str) -> Rung:
    return Rung(number, None, why)


def added(lead: Estimate) -> str:
    """What a feature's lead over what needs no SAE says of the SAE, as the end of a clause."""
    if lead.low > 0:
        return ""
    return ": the SAE has added nothing" if lead.high <= 0 else ": that the SAE has added anything is not shown"
