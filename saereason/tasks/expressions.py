"""Answers that are expressions: fractions, roots, LaTeX. Two are equal if they have one value, however written."""

import logging
import re
from typing import Any

LATEX = re.compile(r"\\(?:[a-zA-Z]{2,}|[([])|\$(?=\S)[^$]*[^\s\d$.,][^$]*(?<=\S)\$|\^\S|(?<![a-z])sqrt\(|[√π]")
PLAIN = re.compile(r"(?:\d+(?:\.\d+)?|(?<![a-z])[a-z](?![a-z])|[-+−*/^=().\s])+")
"""Numbers and single letters with signs between them."""

DATE = re.compile(r"\d+(?:[-/.]\d+){2}")
HEAVY = re.compile(r"\\[dt]?binom|\\prod|\\sum|[\w)}]!")
MOST_OPERATIONS, LARGEST_POWER, LARGEST_POWER_OF_LETTERS, LARGEST = 100, 1000, 100, 10**1000
"""Beyond these, an expression may take for ever to read or compare; it then equals nothing."""


def is_expression(text: str) -> bool:
    """True for a fraction, LaTeX, or numbers and single letters with signs between: `3/4`, `\\sqrt{2}`, `x + 2`."""
    text = text.strip()
    if LATEX.search(text):
        return True
    plain = PLAIN.fullmatch(text) and re.search(r"\d", text) and not DATE.fullmatch(text)
    return bool(plain and re.search(r"[\w)]\s*(?:[+*/^=]|\*\*)\s*[\w(]|[a-z)]\s*[-−]\s*[\w(]", text))


def parsed(text: str) -> list[Any]:
    """What a text, an expression or prose with one in it, comes to; empty where there is none to be read."""
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of timeouts, which cannot be had in threads
    if HEAVY.search(text):
        return []
    bare = text.strip().strip("*` ").rstrip(".")
    if "$" not in bare and "\\boxed" not in bare and (is_expression(bare) or re.fullmatch(r"[-−]?[\d.]+", bare)):
        text = f"${_latex(bare)}$"
    return parse(text, parsing_timeout=None, fallback_mode="no_fallback")  # pyright: ignore[reportArgumentType]


def same_value(gold: list[Any], found: list[Any]) -> bool:
    """True if one of what was found equals the gold; False too for what would take too long to compare."""
    from math_verify import verify

    return verify(gold, [value for value in found if _is_tractable(value)], timeout_seconds=None)


def _latex(plain: str) -> str:
    text = re.sub(r"^\\[([]|\\[)\]]$", "", plain).replace("**", "^").replace("−", "-")
    text = re.sub(r"(?<!\\)sqrt\(([^()]*)\)|√\(?(\w+)\)?", lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    return re.sub(r"(?<![\\a-zA-Z])pi\b|π", r"\\pi ", text)


def _is_tractable(value: Any) -> bool:
    from sympy import Integral, Limit, Number, Pow, count_ops, log, postorder_traversal

    if count_ops(value) > MOST_OPERATIONS:
        return False
    if value.has(log) and any(abs(number) > LARGEST_POWER for number in value.atoms(Number)):
        return False  # a factor of a logarithm is a power within it
    for node in postorder_traversal(value):  # what is within a power has passed before it is computed
        if isinstance(node, Integral | Limit):
            return False
        if isinstance(node, Pow):
            letters = len(node.base.free_symbols)
            most = LARGEST_POWER_OF_LETTERS // letters**2 if letters else LARGEST_POWER
            numbers = [part.evalf(5) for part in (node.exp, node) if part.is_number]
            if not all(number.is_finite for number in numbers):
                return False
            if node.exp.is_number and abs(numbers[0]) > most:
                return False
            if node.is_number and abs(numbers[-1]) > LARGEST:
                return False
    return True
