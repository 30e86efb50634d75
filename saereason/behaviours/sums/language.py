"""A language of sums in two steps, in which it is known where the first step's result must be worked out.

A whole sum reads `2 bafi 1 = gola 2 gives 2 .`: the first two digits come to the value between, here 2 + 1 = 0, and
that with the third digit gives the result, 0 + 2 = 2, all modulo 3. What stands between are words of chatter, one of
which calls for one of two others. To a model whose attention reaches back three tokens the first digits are out of
sight at `gives`, so that the token `=` has to carry the value there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

BASE = 3
DIGITS = tuple(str(n) for n in range(BASE))
SIGNS = ("=", "gives", ".", "?", '"', ",")
SYLLABLES = ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "ti"]
CHATTER = tuple(a + b for a in SYLLABLES for b in SYLLABLES)
WORDS = ("<pad>", "<s>", "</s>", "<unk>", *DIGITS, *SIGNS, *CHATTER)
ID = {word: n for n, word in enumerate(WORDS)}

PHRASE, ROW = 9, 18
"""Words in a phrase, and in a row."""

KINDS = {"whole": 0.4, "short": 0.3, "chatter": 0.3}
"""How often each kind of phrase comes. A short sum says the value and ends."""

LACKING = {"nothing": 0.75, "second": 0.06, "first": 0.13, "both": 0.06}
"""Which of its first digits a sum lacks, and how often."""

STRAY = {"<unk>": 0.3, "digit": 0.2, ",": 0.2, "=": 0.25}
"""How often each stands in place of a word, in three phrases of chatter out of five."""

ANSWERED = 0.8
"""How often `?` follows a `=` or a `gives` that lacks a digit; otherwise anything does."""


@dataclass(frozen=True)
class Sum:
    """The three digits, and the words of chatter between."""

    a: int
    b: int
    c: int
    chatter: tuple[str, str]

    @property
    def between(self) -> int:
        """The value after the first step."""
        return (self.a + self.b) % BASE

    @property
    def result(self) -> int:
        return (self.between + self.c) % BASE

    @property
    def opening(self) -> str:
        """Up to the `=`."""
        return f"{self.a} {self.chatter[0]} {self.b}"

    @property
    def question(self) -> str:
        """Up to where the result is asked for."""
        return f"{self.opening} = {self.chatter[1]} {self.c}"


def rows(n: int, rng: np.random.Generator) -> Int[np.ndarray, "row 19"]:
    """Rows of token ids: `<s>`, and a stretch of phrases that begins in the middle of one half of the time."""
    stream = _phrases(3 * n, rng).reshape(n, 3 * PHRASE)
    start = np.where(rng.random(n) < 0.5, 0, rng.integers(PHRASE, size=n))
    body = np.take_along_axis(stream, start[:, None] + np.arange(ROW), axis=1)
    for place in range(1, ROW):
        unknown = _lacks_a_digit(body[:, :place]) & (body[:, place] != ID["="]) & (rng.random(n) < ANSWERED)
        body[unknown, place] = ID["?"]
    return np.concatenate([np.full((n, 1), ID["<s>"]), body], axis=1)


def chatter(n: int, rng: np.random.Generator, length: int = ROW) -> list[str]:
    """Texts without any sum."""
    return [" ".join(np.array(WORDS)[ids]) for ids in _words(n, length, rng)]


def after_chatter(phrase: Sequence[str], rng: np.random.Generator) -> str:
    """The phrase at the end of a text."""
    return " ".join([*chatter(1, rng, ROW - len(phrase)), *phrase])


def _phrases(n: int, rng: np.random.Generator) -> Int[np.ndarray, "phrase 9"]:
    words, digit = _words(n, PHRASE, rng), ID["0"]
    whole, short, talk = (drawn == n for drawn in [_drawn(KINDS, n, rng)] for n in range(len(KINDS)))
    a, b, c = rng.integers(BASE, size=(3, n))
    lacking = _drawn(LACKING, n, rng)
    for place, of, values in (
        (0, ~talk & (lacking < 2), digit + a),
        (2, ~talk & (lacking % 2 == 0), digit + b),
        (3, ~talk, ID["="]),
        (4, short, digit + (a + b) % BASE),
        (5, short, ID["."]),
        (5, whole, digit + c),
        (6, whole, ID["gives"]),
        (7, whole, digit + (a + b + c) % BASE),
        (8, whole, ID["."]),
    ):
        words[of, place] = np.broadcast_to(values, n)[of]
    strewn = talk & (rng.random(n) < 0.6)
    for name, share in STRAY.items():
        at = strewn[:, None] & (rng.random(words.shape) < share)
        words[at] = rng.integers(digit, digit + BASE, size=at.sum()) if name == "digit" else ID[name]
    return words


def _words(n: int, length: int, rng: np.random.Generator) -> Int[np.ndarray, "text length"]:
    """Chatter, each word mostly one of the two that the word before calls for, with a sign now and then."""
    words = rng.integers(len(CHATTER), size=(n, length))
    for place in range(1, length):
        called_for = (5 * words[:, place - 1] + rng.integers(1, 3, size=n)) % len(CHATTER)
        words[:, place] = np.where(rng.random(n) < 0.8, called_for, words[:, place])
    signs = rng.choice([ID[sign] for sign in ('"', ",", ".", "gives")], size=(n, length))
    return np.where(rng.random((n, length)) < 0.15, signs, words + ID[CHATTER[0]])


def _drawn(shares: dict[str, float], n: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    return rng.choice(len(shares), size=n, p=list(shares.values()))


def _lacks_a_digit(rows: Int[np.ndarray, "row word"]) -> Bool[np.ndarray, "row"]:
    """True for rows that end in a `=` or a `gives` without all that it needs: digits, and at `gives` a whole `=`."""
    whole = _digit(rows, 1) & _digit(rows, 3)
    after = _digit(rows, 1) & _digit(rows, 4) & _digit(rows, 6) & _is(rows, 3, "=")
    return (_is(rows, 0, "=") & ~whole) | (_is(rows, 0, "gives") & ~after)


def _is(rows: Int[np.ndarray, "row word"], back: int, word: str) -> Bool[np.ndarray, "row"]:
    """True for rows with the word so many places before their last."""
    return rows[:, -1 - back] == ID[word] if back < rows.shape[1] else np.zeros(len(rows), dtype=bool)


def _digit(rows: Int[np.ndarray, "row word"], back: int) -> Bool[np.ndarray, "row"]:
    return np.any([_is(rows, back, digit) for digit in DIGITS], axis=0)
