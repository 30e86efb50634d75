"""Untrusted text as people may see it: what hides or turns other text about becomes marks."""

import unicodedata

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""What shows nothing and yet is no control or format character to Unicode."""


def visible(text: str, mark: str = "<U+{:04X}>") -> str:
    """Text in which control, zero-width and direction characters are marks that one can see."""
    return "".join(mark.format(ord(c)) if _hidden(c) else c for c in text)


def one_line(text: str) -> str:
    """Visible text whose line breaks and tabs are marks too."""
    return visible(text).replace("\n", "⏎").replace("\t", "⇥")


def _hidden(c: str) -> bool:
    return c in INVISIBLE or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"))
