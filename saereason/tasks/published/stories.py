"""bAbI's text: numbered statements, and questions with an answer and the numbers of the statements it follows from."""

import re
from collections.abc import Iterator
from typing import Any

LINE = re.compile(r"(\d+) (.+)")


def questions(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each question with the story so far, its answer and its supporting statements; numbered by lines."""
    story: dict[int, str] = {}
    for n, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(
                f"{where}, row {n} is no numbered line of a story ({line[:60]!r}); mend it or take it out."
            )
        number, cells = int(found[1]), [cell.strip() for cell in re.split(r"[\t|]", found[2])]
        if number == 1:
            story = {}
        if len(cells) == 1:
            story[number] = cells[0]
            continue
        supporting = [int(word) for word in cells[2].split()] if len(cells) == 3 else []
        if not supporting or not set(supporting) <= set(story):
            raise ValueError(
                f"{where}, row {n} is no question with an answer and statements above it ({line[:60]!r}); mend it."
            )
        yield (
            n,
            {
                "passage": "\n".join(story.values()),
                "question": cells[0],
                "answer": cells[1],
                "supporting": [story[k] for k in supporting],
            },
        )
