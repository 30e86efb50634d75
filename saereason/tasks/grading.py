"""From a generated text to an outcome."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

from .expressions import is_expression, parsed, same_value

NUMBER = r"(?:(?<!\w)[-+−])?(?:\d[\d,]*(?:\.\d+)?|(?<!\w)\.\d+)"
SUM = rf"{NUMBER}(?:\s*[-+−*/×÷]\s*{NUMBER})+\s*=[\s$€£]*"
STATED = re.compile(rf"(?:answer is|answer:|<answer>|####|\\boxed\{{)[\s:*$€£\\]*(?:{SUM})?({NUMBER})", re.IGNORECASE)
CHOSEN = re.compile(
    r"(?:answer(?:\s+is|\s*:)|<answer>)[\s:*(\"']*(?:(?:the|option|choice|letter)\s+)*(\w+)", re.IGNORECASE
)
QUANTITY = re.compile(rf"[$€£]?\s*({NUMBER})\s*%?(?:\s+[a-z]+)?")
"""A number that may have a currency sign, a percent sign or one word for its unit."""

STATEMENT = re.compile(r"answer(?:\s+is|\s*:)|<answer>", re.IGNORECASE)
STATED_HERE = re.compile(r"answer(?:\s+is|\s*:)|<answer>|####|(?=\\boxed\{)", re.IGNORECASE)
LINE_STATED = re.compile(rf"(?:{STATED_HERE.pattern})[ \t:*]*(\S[^\n]*)", re.IGNORECASE)
FORMULA_END = re.compile(r"\n|[.;]\s|\$[^$]*\S[^$]*\$|\\boxed\{.*\}")
CHOICES = ("yes", "no", "true", "false")
FEWEST_REPEATS, SHORTEST_LOOP = 3, 12


class Outcome(StrEnum):
    """What became of one answer. A cut-off answer is not a wrong one."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TRUNCATED = "truncated"
    LOOPING = "looping"


def grade(
    text: str,
    answer: str | Sequence[str],
    *,
    finished: bool = True,
    tokens: Sequence[int] = (),
    score: Callable[[str], float] | None = None,
) -> Outcome:
    """Grade one answer, a number or a short string; of several accepted answers one must be there.

    A number (`12`, `$12`, `12 apples`) is the last one stated as the answer ("The answer is 12", "#### 12",
    `\\boxed{12}`, `<answer>12`), else the last one in a finished text. A single letter, yes, no, true or false must be
    what the text says the answer is, or else its first or (if finished) last word. An expression (`3/4`, `\\sqrt{2}`,
    `x + 2`) must equal the one stated, or else the last one, however written (math-verify). Any other string must be
    there as whole words, whatever the case and accents, in an unfinished text too; where the text says what the answer
    is, from there on.

    Of texts that do not give the answer, one that is unfinished and has stated no other is looping where `tokens` end
    in a cycle, else truncated; one without any number, choice, expression or word to compare is unparsable.

    With a `score`, the answer that is stated (or else all of a finished text, or its last line) is right where it gives
    1.0. Of the rules above, that for choices then holds instead, and that for numbers too.
    """
    accepted = (answer,) if isinstance(answer, str) else tuple(answer)
    if not accepted:
        raise ValueError("no answer to grade by; give at least one.")
    if score is not None and not any(map(is_choice, accepted)):
        if any(score(said) >= 1.0 for said in said_in(text, finished)):
            return Outcome.RIGHT
        accepted = tuple(one if is_number(one) else "" for one in accepted)
    outcomes = [_grade(text, one, finished, tokens) for one in accepted]
    return Outcome.RIGHT if Outcome.RIGHT in outcomes else outcomes[0]


def _grade(text: str, answer: str, finished: bool, tokens: Sequence[int]) -> Outcome:
    if is_number(answer):
        right = _number_is_right(text, answer, finished)
    elif is_choice(answer):
        right = _choice_is_right(text, answer, finished)
    elif is_expression(answer) and (gold := parsed(answer)):
        right = _expression_is_right(text, gold, finished)
    else:
        right = gives(text, answer) or (False if text.strip() and finished else None)
    if right is not None:
        return Outcome.RIGHT if right else Outcome.WRONG
    if finished:
        return Outcome.UNPARSABLE
    return Outcome.LOOPING if is_looping(tokens) else Outcome.TRUNCATED


def _number_is_right(text: str, answer: str, finished: bool) -> bool | None:
    """None, here and below, for a text that gives nothing to compare."""
    numbers = STATED.findall(text) or (re.findall(NUMBER, text) if finished else [])
    return value(numbers[-1]) == value(answer) if numbers else None


def _choice_is_right(text: str, answer: str, finished: bool) -> bool | None:
    said = choices_in(text, finished)
    return _bare(answer) in said if any(map(is_choice, said)) else None


def _expression_is_right(text: str, gold: list[Any], finished: bool) -> bool | None:
    """What is stated counts to the end of its line; in an unfinished text it is wrong only once its end is there."""
    stated = [text[found.end() :].strip() for found in STATED_HERE.finditer(text)]
    if not finished and not any(stated):
        return None
    where = stated[-1].split("\n")[0] if stated and stated[-1] else text
    found = parsed(where)
    if same_value(gold, found):
        return True
    return False if found and (finished or FORMULA_END.search(stated[-1])) else None


def is_number(text: str) -> bool:
    """True for a number, be it with a sign of currency, a percent sign or a word for its unit."""
    return QUANTITY.fullmatch(text.strip()) is not None


def is_choice(answer: str) -> bool:
    """True for an answer that any text may hold by chance: one letter, yes, no, true or false."""
    word = _bare(answer)
    return (len(word) == 1 and word.isalpha()) or word in CHOICES


def choices_in(text: str, finished: bool = True) -> set[str]:
    """The word that the text states as its answer, or else the one it opens with and, if finished, ends with."""
    stated = CHOSEN.findall(text)
    if stated:
        return {stated[-1].casefold()}
    opens = re.match(r"[\s*(\"']*(\w+)([*\"]*(?:[).:,;!]|\s*$))?", text)
    ends = re.search(r"(\w+)\W*$", text) if finished else None
    if opens and len(opens[1]) == 1 and opens[2] is None:  # "A lot" does not choose A
        opens = None
    return {found[1].casefold() for found in (opens, ends) if found}


def _bare(answer: str) -> str:
    return answer.strip().strip("().").casefold()


def answer_span(text: str, like: str, *, finished: bool = True) -> tuple[int, int] | None:
    """Where a text gives its answer, by the rules of `grade` for answers like the one given; None where it gives none.

    Of a number, the last one stated, or else the last of a finished text; of a choice, the word stated, or else the
    first or last word where it is a choice; of anything else the line after the last statement, or else the last line
    of a finished text.
    """
    if is_number(like):
        found = [match.span(1) for match in STATED.finditer(text)]
        found = found or ([match.span() for match in re.finditer(NUMBER, text)] if finished else [])
    elif is_choice(like):
        found = [match.span(1) for match in CHOSEN.finditer(text)]
        ends = [re.match(r"[\s*(\"']*(\w+)", text), re.search(r"(\w+)\W*$", text) if finished else None]
        found = found or [match.span(1) for match in ends if match and is_choice(match[1])][:1]
    else:
        found = [match.span(1) for match in LINE_STATED.finditer(text)]
        found = found or ([match.span(1) for match in re.finditer(r"(\S.*?)\s*\Z", text)][-1:] if finished else [])
    return found[-1] if found else None


def said_in(text: str, finished: bool) -> list[str]:
    """What may be meant as the answer: the rest of the text, or of the line, after the last statement of it."""
    stated = [text[found.end() :].strip() for found in STATED_HERE.finditer(text)]
    if stated and stated[-1]:
        rest = re.split(r"</answer>", stated[-1], maxsplit=1, flags=re.IGNORECASE)[0].strip()
        found = [rest, rest.split("\n")[0]]
        if boxed := re.search(r"\\boxed\{(.*)\}", stated[-1]):
            found.append(boxed[1])
    else:
        found = [text.strip(), text.strip().rpartition("\n")[2]] if finished else []
    bare = [one.strip("*`$: \n") for one in found]
    return [one for one in dict.fromkeys([*found, *bare, *(one.removesuffix(".") for one in bare)]) if one]


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
