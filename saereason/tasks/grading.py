"""From a generated text to an outcome."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

NUMBER = r"(?:(?<!\w)[-+−])?(?:\d[\d,]*(?:\.\d+)?|(?<!\w)\.\d+)"
STATED = re.compile(rf"(?:answer is|answer:|####|\\boxed\{{)[\s:*$€£\\]*({NUMBER})", re.IGNORECASE)
FEWEST_REPEATS, SHORTEST_LOOP = 3, 12


class Outcome(StrEnum):
    """What became of one answer. A cut-off answer is not a wrong one."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TRUNCATED = "truncated"
    LOOPING = "looping"


def grade(text: str, answer: str, *, finished: bool = True, tokens: Sequence[int] = ()) -> Outcome:
    """Grade one answer, a number or a short string.

    A number is the last one stated as the answer ("The answer is 12", "#### 12", `\\boxed{12}`), else the last one in a
    finished text. A string must be there as whole words, whatever the case and accents, in an unfinished text too.
    Any other unfinished text is looping where `tokens` end in a cycle, else truncated.
    """
    numeric = is_number(answer)
    if not numeric and contains(text, answer):
        return Outcome.RIGHT
    stated = STATED.findall(text) if numeric else []
    if not finished and not stated:
        return Outcome.LOOPING if is_looping(tokens) else Outcome.TRUNCATED
    if not numeric:
        return Outcome.WRONG if text.strip() else Outcome.UNPARSABLE
    numbers = stated or re.findall(NUMBER, text)
    if not numbers:
        return Outcome.UNPARSABLE
    return Outcome.RIGHT if _value(numbers[-1]) == _value(answer) else Outcome.WRONG


def is_number(text: str) -> bool:
    return re.fullmatch(NUMBER, text.strip()) is not None


def is_looping(tokens: Sequence[int]) -> bool:
    """True if the tokens end in a cycle: at least three turns and twelve tokens of it."""
    row = list(tokens)
    for period in range(1, len(row) // FEWEST_REPEATS + 1):
        length = max(FEWEST_REPEATS * period, SHORTEST_LOOP)
        tail = row[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False


def contains(text: str, answer: str) -> bool:
    """True if the answer stands in the text as whole words, whatever the case, accents and punctuation."""
    words = _plain(answer)
    return bool(words) and f" {words} " in f" {_plain(text)} "


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", kept))


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("−", "-"))
