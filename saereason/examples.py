"""Tokens with an answer, for each, to "is the behaviour happening here?"."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .model import Batch, Model, Rendered, pad

Spans = Sequence[tuple[int, int]]
"""Stretches of a text: characters from and to."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of tokens, left-padded; what counts as one observation is all valid tokens of one group and label."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """False on padding."""

    label: Bool[Tensor, "batch pos"]
    valid: Bool[Tensor, "batch pos"]
    """True where a token is to be scored."""

    group: Int[Tensor, "batch"]
    """Which prompt, or pair of prompts, a row belongs to."""

    target: Float[Tensor, "batch pos"] | None = None
    """A number for each token, with which `search` correlates activations in the label's place (`pearson`)."""

    @classmethod
    def pair(
        cls,
        model: Model,
        on: Sequence[str | Rendered],
        off: Sequence[str | Rendered],
        *,
        written: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]] | None = None,
    ) -> "Examples":
        """The same questions asked in two ways, scored at the last prompt token; pair i is group i.

        With `written`, token ids that follow each prompt on and off (`generate(...).tokens`, cut to the first n), those
        are scored instead. Raises ValueError for unequal numbers, and where nothing was written.
        """
        if isinstance(on, str) or isinstance(off, str):
            raise ValueError(f"{on if isinstance(on, str) else off!r:.60} is one text; give lists of prompts.")
        if len(on) != len(off) or not on:
            raise ValueError(f"{len(on)} prompts on and {len(off)} off; give the same number of each, at least one.")
        asked = [model.encode(prompt) for pair in zip(on, off, strict=True) for prompt in pair]
        if written is None:
            return cls._of(
                model, asked, [[False] * (len(row) - 1) + [True] for row in asked], _turns(asked), _twos(asked)
            )
        if {len(side) for side in written} != {len(on)}:
            raise ValueError(f"{len(written[0])} and {len(written[1])} texts for {len(on)} pairs; give one a prompt.")
        said = [list(row) for pair in zip(*written, strict=True) for row in pair]
        if not all(said):
            raise ValueError(
                f"{sum(map(bool, said))} texts were written after {len(asked)} prompts; give each at least one token."
            )
        rows = [a + b for a, b in zip(asked, said, strict=True)]
        valid = [[False] * len(a) + [True] * len(b) for a, b in zip(asked, said, strict=True)]
        return cls._of(model, rows, valid, _turns(rows), _twos(rows))

    @classmethod
    def texts(cls, model: Model, on: Sequence[str], off: Sequence[str]) -> "Examples":
        """Two sets of texts, each text a group of its own; all tokens but a text's first are scored."""
        rows = [model.encode(text) for text in (*on, *off)]
        if not on or not off or min(map(len, rows)) < 2:
            raise ValueError(f"{len(on)} texts on and {len(off)} off; give some of each, of at least two tokens.")
        valid = [[False] + [True] * (len(row) - 1) for row in rows]
        return cls._of(model, rows, valid, [n < len(on) for n in range(len(rows))], list(range(len(rows))))

    @classmethod
    def graded(
        cls, model: Model, prompts: Sequence[str | Rendered], written: Sequence[Sequence[int]], right: Sequence[bool]
    ) -> "Examples":
        """What the model wrote after each prompt, on where the answer was right; each prompt is a group of its own."""
        if not len(prompts) == len(written) == len(right) or not all(len(row) for row in written):
            raise ValueError(
                f"{len(prompts)} prompts, {len(written)} answers, {len(right)} grades; give as many of each, and no "
                "answer without a token."
            )
        asked = [model.encode(prompt) for prompt in prompts]
        rows = [a + list(b) for a, b in zip(asked, written, strict=True)]
        valid = [[False] * len(a) + [True] * len(b) for a, b in zip(asked, written, strict=True)]
        return cls._of(model, rows, valid, list(map(bool, right)), list(range(len(rows))))

    @classmethod
    def spans(
        cls, model: Model, texts: Sequence[str], on: Sequence[Spans], off: Sequence[Spans] | None = None
    ) -> "Examples":
        """Stretches of each text, as characters from and to, that show the behaviour; the rest, or `off`, does not.

        For labelled sentences, say. A token belongs to a stretch it touches, on before off; a text's first token is not
        scored. Texts without tokens of both kinds are left out, so that each text is compared with itself.
        """
        if len(on) != len(texts) or (off is not None and len(off) != len(texts)):
            raise ValueError(f"{len(texts)} texts have stretches for {len(on)}; give a list, maybe empty, for each.")
        rows, valid, label = [], [], []
        for n, text in enumerate(texts):
            ids, places = tokens_of(model, text)
            shows = [touches(place, on[n]) for place in places]
            scored = (
                [True] * len(ids)
                if off is None
                else [a or touches(b, off[n]) for a, b in zip(shows, places, strict=True)]
            )
            scored[:1] = [False] * len(scored[:1])
            if len({a for a, b in zip(shows, scored, strict=True) if b}) == 2:
                rows.append(ids)
                valid.append(scored)
                label.append(shows)
        if not rows:
            raise ValueError(f"none of {len(texts)} texts has tokens of both kinds; give other texts or stretches.")
        return cls._of(model, rows, valid, label, list(range(len(rows))))

    @classmethod
    def marked(cls, model: Model, texts: Sequence[str], pattern: str) -> "Examples":
        """Texts in which whatever the regular expression matches shows the behaviour, and the rest does not."""
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{pattern!r} is no regular expression ({error}); escape what stands for itself."
            ) from error
        found = [[match.span() for match in re.finditer(pattern, text) if match.group()] for text in texts]
        return cls.spans(model, texts, found)

    @classmethod
    def _of(
        cls,
        model: Model,
        rows: Sequence[Sequence[int]],
        valid: Sequence[Sequence[bool]],
        label: Sequence[bool] | Sequence[Sequence[bool]],
        group: Sequence[int],
    ) -> "Examples":
        """Left-padded rows; a label is for a whole row, or for each of its tokens. Raises ValueError for a long row."""
        check_length(model, max(map(len, rows), default=0))
        batch = pad(rows, pad_token=model.pad_token)
        told = [
            each if isinstance(each, Sequence) else [each] * len(row) for each, row in zip(label, rows, strict=True)
        ]
        scored, shows = (
            pad([list(map(int, row)) for row in values], pad_token=0).tokens.bool() for values in (valid, told)
        )
        return cls(batch.tokens, batch.mask, shows, scored, torch.tensor(group))

    def observations(self) -> Int[np.ndarray, "observation 2"]:
        """Group and label (1 on, 0 off) of every observation: a group's scored tokens of one label.

        In the order of the groups, on before off. Raises ValueError where there are none of a label, and for a group
        whose rows are apart.
        """
        group, label = (
            column[self.valid].numpy() for column in (self.group[:, None].expand_as(self.valid), self.label)
        )
        runs = 1 + int((self.group[1:] != self.group[:-1]).sum())
        if len(self.group) and runs > self.n_groups:
            raise ValueError("the rows of a group are apart; put them next to each other.")
        if (self.group[1:] < self.group[:-1]).any():
            raise ValueError("the groups do not ascend from row to row; sort the rows by group.")
        keys = np.unique(2 * group + ~label)
        n_on = int((keys % 2 == 0).sum())
        if not 0 < n_on < len(keys):
            raise ValueError(f"{n_on} prompts show the behaviour and {len(keys) - n_on} do not; both are needed.")
        return np.stack([keys // 2, 1 - keys % 2], axis=1)

    @property
    def n_groups(self) -> int:
        return len(self.group.unique())

    @property
    def n_repeated(self) -> int:
        """Groups that are another, earlier one over again: the same tokens, scored in the same places."""
        seen: dict[int, list[bytes]] = {}
        columns = (self.group, self.tokens, self.mask, self.label, self.valid)
        for group, *row in zip(*(column.cpu().numpy() for column in columns), strict=True):
            seen.setdefault(int(group), []).extend(part[row[1]].tobytes() for part in row)
        return len(seen) - len({tuple(rows) for rows in seen.values()})

    def batches(self, size: int, device: torch.device) -> Iterator["Examples"]:
        """About `size` rows at a time, never part of a group, without the padding that a batch does not need."""
        for rows in _whole_groups(self.group.tolist(), size):
            width = int(self.mask[rows].sum(-1).max())
            cut = (rows, slice(self.tokens.shape[1] - width, None))
            columns = (self.tokens[cut], self.mask[cut], self.label[cut], self.valid[cut], self.group[rows])
            target = None if self.target is None else self.target[cut].to(device)
            yield replace(Examples(*(column.to(device) for column in columns)), target=target)

    @property
    def batch(self) -> Batch:
        return Batch(self.tokens, self.mask)


def tokens_of(model: Model, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """A text's token ids and the characters that each stands for. Raises ValueError where the tokenizer cannot tell."""
    if not getattr(model.tokenizer, "is_fast", False):
        raise ValueError(f"the tokenizer of {model.name} does not say where tokens stand; give a fast one.")
    found = model.tokenizer(text, return_offsets_mapping=True, verbose=False)
    check_length(model, len(found["input_ids"]))
    return list(found["input_ids"]), [tuple(place) for place in found["offset_mapping"]]


def check_length(model: Model, n: int) -> None:
    """Raises ValueError for a text of more tokens than the model reads."""
    if n > model.n_ctx:
        raise ValueError(f"a text has {n} tokens and the context of {model.name} is {model.n_ctx}; cut it up.")


def touches(place: tuple[int, int], spans: Spans) -> bool:
    """True if a token shares a character with one of the stretches."""
    return any(place[0] < end and start < place[1] for start, end in spans)


def _turns(rows: Sequence[Sequence[int]]) -> list[bool]:
    return [n % 2 == 0 for n in range(len(rows))]


def _twos(rows: Sequence[Sequence[int]]) -> list[int]:
    return [n // 2 for n in range(len(rows))]


def _whole_groups(group: Sequence[int], size: int) -> Iterator[slice]:
    """Slices of at least one group and, but for that, of at most `size` rows."""
    ends = [n for n in range(1, len(group) + 1) if n == len(group) or group[n] != group[n - 1]]
    start = 0
    for end, after in zip(ends, [*ends[1:], None], strict=True):
        if after is None or after - start > size:
            yield slice(start, end)
            start = end
