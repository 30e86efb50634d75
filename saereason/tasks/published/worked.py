"""Word problems with gold working: GSM8K and SVAMP."""

import re
from fractions import Fraction

from ..grading import NUMBER, is_number, value
from ..task import Item
from .rows import Row

ANNOTATION = re.compile(r"<<([^<>]*)>>")
SHOWN = re.compile(rf"(\s*[$€£]?\s*)({NUMBER})")
BRACKET = re.compile(r"\(\s*(-?[\d.]+)\s*([-+*/])\s*(-?[\d.]+)\s*\)")


def gsm8k(row: Row) -> Item:
    """The spans are the results that the annotations `<<16-3=13>>` state."""
    working, mark, final = row.text("answer").rpartition("####")
    if not mark or not is_number(final):
        raise row.malformed("has an answer that does not end in #### and a number")
    text, spans = without_annotations(working.strip())
    solution = f"{text}\nThe answer is {final.strip()}."
    return Item(row.id, row.text("question"), final.strip(), solution, spans)


def without_annotations(text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Working without its annotations, and where in it each annotated result stands.

    An annotation whose result does not follow it gives no span.
    """
    shown, spans, end = "", [], 0
    for note in ANNOTATION.finditer(text):
        shown, end = shown + text[end : note.start()], note.end()
        result = note[1].rpartition("=")[2].strip()
        found = SHOWN.match(text, end)
        if found and is_number(result) and value(found[2]) == value(result):
            start = len(shown) + len(found[1])
            spans.append((start, start + len(found[2].rstrip(","))))
        elif result and text.startswith(result, end):  # 3/4
            spans.append((len(shown), len(shown) + len(result)))
    return shown + text[end:], tuple(spans)


def svamp(row: Row) -> Item:
    """The equation, bracket by bracket, is the working, if it comes to the answer."""
    body, question = row.text("Body"), row.text("Question")
    answer = _plain(str(row.fields.get("Answer")))
    if not is_number(answer):
        raise row.malformed(f"has an answer that is no number ({row.fields.get('Answer')!r})")
    lines, result = _steps(str(row.fields.get("Equation") or ""))
    joined = f"{body}{' ' if body[-1] in '.,!?' else ', '}{question}"
    if result != answer:
        return Item(row.id, joined, answer)
    text, spans = "", []
    for left, step in lines:
        text += f"{left} = {step}"
        spans.append((len(text) - len(step), len(text)))
        text += "\n"
    return Item(row.id, joined, answer, f"{text}The answer is {answer}.", tuple(spans))


def _steps(equation: str) -> tuple[list[tuple[str, str]], str]:
    """`( ( 5.0 + 3.0 ) * 2.0 )` as 5 + 3 = 8 and 8 * 2 = 16, and what it comes to."""
    lines = []
    while found := BRACKET.search(equation):
        left, sign, right = _plain(found[1]), found[2], _plain(found[3])
        if sign == "/" and Fraction(right) == 0:
            return [], ""
        a, b = Fraction(left), Fraction(right)
        result = _plain(str(float({"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a / b)))
        lines.append((f"{left} {sign} {right}", result))
        equation = equation[: found.start()] + result + equation[found.end() :]
    return lines, equation.strip()


def _plain(number: str) -> str:
    """A number without a fraction of nought."""
    return re.sub(r"\.0+$", "", number.strip())
