"""From a generated text to an outcome."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

NUMBER = r"(?:(?<!\w)[-+−])?(?:\d[\d,]*(?:\.\d+)?|(?<!\w)\.\d+)"
SUM = rf"{NUMBER}(?:\s*[-+−*/×÷]\s*{NUMBER})+\s*=[\s$€£]*"
STATED = re.compile(rf"(?:answer is|answer:|####|\\boxed\{{)[\s:*$€£\\]*(?:{SUM})?({NUMBER})", re.IGNORECASE)
CHOSEN = re.compile(r"answer(?:\s+is|\s*:)[\s:*(\"']*(?:(?:the|option|choice|letter)\s+)*(\w+)", re.IGNORECASE)
QUANTITY = re.compile(rf"[$€£]?\s*({NUMBER})\s*%?(?:\s+[a-z]+)?")
"""A number that may have a currency sign, a percent sign or one word for its unit."""

STATEMENT = re.compile(r"answer(?:\s+is|\s*:)", re.IGNORECASE)
CHOICES = ("yes", "no", "true", "false")
FEWEST_REPEATS, SHORTEST_LOOP = 3, 12


class Outcome(StrEnum):
    """What became of one answer. A cut-off answer is not a wrong one."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TRUNCATED = "truncated"
    LOOPING = "looping"


def grade(text: str, answer: str | Sequence[str], *, finished: bool = True, tokens: Sequence[int] = ()) -> Outcome:
    """Grade one answer, a number or a short string; of several accepted answers one must be there.

    A number (`12`, `$12`, `12 apples`) is the last one stated as the answer ("The answer is 12", "#### 12",
    `\\boxed{12}`), else the last one in a finished text. A single letter, yes, no, true or false must be what the text
    says the answer is, or else its first or last word. Any other string must be there as whole words, whatever the case
    and accents, in an unfinished text too; where the text says what the answer is, from there on. Any other unfinished
    text is looping where `tokens` end in a cycle, else truncated.
    """
    accepted = (answer,) if isinstance(answer, str) else tuple(answer)
    if not accepted:
        raise ValueError("no answer to grade by; give at least one.")
    outcomes = [_grade(text, one, finished, tokens) for one in accepted]
    return Outcome.RIGHT if Outcome.RIGHT in outcomes else outcomes[0]


def _grade(text: str, answer: str, finished: bool, tokens: Sequence[int]) -> Outcome:
    numeric = is_number(answer)
    if not numeric and (chooses if is_choice(answer) else gives)(text, answer):
        return Outcome.RIGHT
    stated = STATED.findall(text) if numeric else []
    if not finished and not stated:
        return Outcome.LOOPING if is_looping(tokens) else Outcome.TRUNCATED
    if not numeric:
        return Outcome.WRONG if text.strip() else Outcome.UNPARSABLE
    numbers = stated or re.findall(NUMBER, text)
    if not numbers:
        return Outcome.UNPARSABLE
    return Outcome.RIGHT if value(numbers[-1]) == value(answer) else Outcome.WRONG


def is_number(text: str) -> bool:
    """True for a number, be it with a sign of currency, a percent sign or a word for its unit."""
    return QUANTITY.fullmatch(text.strip()) is not None


def is_choice(answer: str) -> bool:
    """True for an answer that any text may hold by chance: one letter, yes, no, true or false."""
    word = answer.strip().strip("().")
    return (len(word) == 1 and word.isalpha()) or word.casefold() in CHOICES


def chooses(text: str, answer: str) -> bool:
    """True if the text states this choice as its answer, or opens or ends with it."""
    word = answer.strip().strip("().").casefold()
    stated = CHOSEN.findall(text)
    if stated:
        return stated[-1].casefold() == word
    alone = r"[*\"]*(?:[).:,;!]|\s*$)" if len(word) == 1 else ""  # "A lot" does not choose A
    opens = re.match(r"[\s*(\"']*(\w+)" + alone, text)
    ends = re.search(r"(\w+)\W*$", text)
    return word in {found[1].casefold() for found in (opens, ends) if found}


def is_looping(tokens: Sequence[int]) -> bool:
    """True if the tokens end in a cycle: at least three turns and twelve tokens of it."""
    row = list(tokens)
    for period in range(1, len(row) // FEWEST_REPEATS + 1):
        length = max(FEWEST_REPEATS * period, SHORTEST_LOOP)
        tail = row[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False


def gives(text: str, answer: str) -> bool:
    """True if the answer stands where the text last says what the answer is, or else anywhere in it."""
    stated = [text[found.end() :] for found in STATEMENT.finditer(text)]
    return contains(stated[-1] if stated and stated[-1].strip() else text, answer)


def contains(text: str, answer: str) -> bool:
    """True if the answer stands in the text as whole words, whatever the case, accents and punctuation.

    An answer without a letter or a digit, such as `*`, must stand by itself.
    """
    if not re.search(r"\w", answer):
        alone = rf"(?<!\S){re.escape(answer.strip())}(?=[.,;:!?]*(?:\s|$))"
        return bool(answer.strip()) and re.search(alone, text) is not None
    if re.search(r"[+*/=<>^%$€£#&@|~\\]", answer):  # C++ is not C
        return re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", text.casefold()) is not None
    words = _plain(answer)
    return bool(words) and f" {words} " in f" {_plain(text)} "


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", kept))


def value(number: str) -> Decimal:
    """A number as `is_number` knows it, without its commas and units; ValueError for any other text."""
    found = QUANTITY.fullmatch(number.strip())
    if found is None:
        raise ValueError(f"{number!r} is no number; give one such as 12, $1,200 or 12 apples.")
    return Decimal(found[1].replace(",", "").replace("−", "-"))
