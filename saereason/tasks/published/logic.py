"""Short chains of inference with their gold steps: ProntoQA, StrategyQA and bAbI."""

from ..task import Item
from .rows import Row

NUMERALS = {"none": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}


def prontoqa(row: Row) -> Item:
    """The proof is the solution; the spans are what each line that the context lacks says of its subject."""
    context, right = row.text("context"), row.text("answer")
    said = [option[2:].strip() for option in row.texts("options") if option.startswith(f"{right})")]
    if said not in (["True"], ["False"]):
        raise row.malformed(f"has the answer {right!r}, which is not the letter of True or False")
    question = f"{context}\n{row.text('question')}"
    text, spans = "", []
    for line in _lines(row, "explanation"):
        if line not in context:
            start = len(text) + line.find(" is ") + len(" is ") if " is " in line else len(text)
            spans.append((start, len(text) + len(line.rstrip("."))))
        text += f"{line}\n"
    if not text:
        return Item(row.id, question, said[0])
    return Item(row.id, question, said[0], f"{text}The answer is {said[0]}.", tuple(spans))


def strategyqa(row: Row) -> Item:
    """The solution is the decomposition, the facts, and the answer, which alone is a span."""
    right = row.fields.get("answer")
    if not isinstance(right, bool):
        raise row.malformed(f"has an answer that is not true or false ({right!r})")
    lines = [line.strip() for name in ("decomposition", "facts") for line in _lines(row, name)]
    return _concluded(row, row.text("question"), "yes" if right else "no", "\n".join(lines))


def babi(row: Row) -> Item:
    """The solution is the supporting statements and the answer, which alone is a span; a count may be in digits."""
    question, answer = f"{row.text('passage')}\n{row.text('question')}", row.text("answer")
    aliases = (NUMERALS[answer],) if answer in NUMERALS else ()
    return _concluded(row, question, answer, "\n".join(_lines(row, "supporting")), aliases)


def _lines(row: Row, name: str) -> tuple[str, ...]:
    """A field that may be a list of texts, one text, or not there."""
    found = row.fields.get(name)
    return () if not found else (row.text(name),) if isinstance(found, str) else row.texts(name)


def _concluded(row: Row, question: str, answer: str, working: str, aliases: tuple[str, ...] = ()) -> Item:
    if not working:
        return Item(row.id, question, answer, aliases=aliases)
    start = len(working) + len("\nThe answer is ")
    solution = f"{working}\nThe answer is {answer}."
    return Item(row.id, question, answer, solution, ((start, start + len(answer)),), aliases)
