"""Stars and notes, kept in a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from saereason.runs import Run, write_json

FILE = "explorer.json"


@dataclass(frozen=True)
class Marks:
    """By the names of features."""

    starred: frozenset[str] = frozenset()
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, run: Run) -> "Marks":
        """What the run holds. Raises ValueError for a file that someone else's hand has spoilt."""
        path = run.folder / FILE
        if not path.is_file():
            return cls()
        try:
            told = json.loads(path.read_text(encoding="utf8"))
            starred, notes = told["starred"], {str(k): str(v) for k, v in told["notes"].items()}
            if not isinstance(starred, list):
                raise TypeError("stars are a list")
            return cls(frozenset(map(str, starred)), notes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no stars and notes; mend it or move it away.") from error


def keep(run: Run, before: Marks, now: Marks) -> Marks:
    """Write what has changed from `before` to `now` into the run, and give all that it then holds.

    What another notebook has written there meanwhile stays.
    """
    path = run.folder / FILE
    with FileLock(Path(f"{path.with_name('.' + FILE)}.lock")):
        held = Marks.load(run)
        starred = (held.starred - (before.starred - now.starred)) | (now.starred - before.starred)
        changed = {name: now.notes.get(name, "") for name in {*before.notes, *now.notes}}
        changed = {name: text for name, text in changed.items() if text != before.notes.get(name, "")}
        notes = {name: text for name, text in {**held.notes, **changed}.items() if text}
        write_json(path, {"starred": sorted(starred), "notes": notes})
    return Marks(frozenset(starred), notes)
