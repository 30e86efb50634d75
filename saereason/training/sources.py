"""Rows of token ids from text, JSON lines, Parquet, token arrays, datasets, and from what the model itself writes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from saereason.generate import generate
from saereason.model import Model, Rendered

HUB = "hub:"
"""Before the name of a dataset on the Hugging Face hub; without it nothing is fetched."""

ASKED, ANSWERED = ("question", "prompt", "input"), ("answer", "completion", "response", "output")
TOKENS = ("tokens", "input_ids")


@dataclass(frozen=True)
class Framing:
    """How documents become rows.

    Unless told otherwise each row is from one document, and BOS stands where the tokenizer puts it: at a document's
    start, if at all. Whatever stands first in a row, its activation is not trained on.
    """

    length: int = 128
    """Tokens in a row, at most."""

    packed: bool = False
    """Documents end to end, the end-of-text token after each, cut into rows that are all full."""

    bos: bool | None = None
    """True: every row begins with BOS; False: none does."""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"rows of length {self.length} have no token to train on; give at least 2.")

    def rows(self, model: Model, documents: Iterable[Sequence[int]]) -> list[list[int]]:
        """Documents, tokenised with special tokens as the tokenizer adds them, as rows."""
        bos, room = self._bos(model), self.length - (self.bos is True)
        plain = [_without(document, bos if self.bos is not None else None) for document in documents]
        if self.packed:
            end = model.tokenizer.eos_token_id
            if end is None:
                raise ValueError(f"the tokenizer of {model.name} has no end-of-text token; leave packing out.")
            joined = list(chain.from_iterable([*document, end] for document in plain))
            cut = [joined[n : n + room] for n in range(0, len(joined) - room + 1, room)]
        else:
            cut = [row for document in plain for row in _cut(document, room)]
        return [[bos, *row] for row in cut] if self.bos and bos is not None else cut

    def _bos(self, model: Model) -> int | None:
        bos = model.tokenizer.bos_token_id
        if self.bos and bos is None:
            raise ValueError(f"the tokenizer of {model.name} has no BOS token; leave it out.")
        return bos


def read_rows(model: Model, source: str | Path, framing: Framing = Framing()) -> list[list[int]]:
    """The documents of a source as rows.

    A source is a text file (paragraphs apart by empty lines), JSON lines or Parquet, a `.npy` or `.safetensors` array
    of token ids (a row each), a folder that `datasets` saved, or `hub:` and the name of a dataset on the hub (its
    `train` split). A record has `text`; or `messages`, a chat; or `question` and `answer` (`prompt` and `completion`);
    or `tokens`. Raises ValueError for a source that is missing, damaged, empty or of another form.
    """
    documents = [ids for ids in (_ids(model, record, str(source)) for record in _records(source)) if ids]
    if not documents:
        raise ValueError(f"{source} holds no text; give documents.")
    unknown = [t for t in (min(map(min, documents)), max(map(max, documents))) if not 0 <= t < model.d_vocab]
    if unknown:
        raise ValueError(f"{source} has token id {unknown[0]}; {model.name} has ids 0 to {model.d_vocab - 1}.")
    return framing.rows(model, documents)


def as_rows(model: Model, texts: Sequence[str] | Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Rows as they are; strings as rows."""
    strings = [isinstance(text, str) for text in texts]
    if any(strings) and not all(strings):
        raise ValueError("the texts are partly strings and partly token ids; give one or the other.")
    if not any(strings):
        return _ids_fit(model, texts)  # pyright: ignore[reportArgumentType]
    return Framing().rows(model, (_ids(model, str(text), "the texts") for text in texts))


def _ids_fit(model: Model, rows: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    for n, row in enumerate(rows):
        if len(row) > model.n_ctx:
            raise ValueError(f"row {n} has {len(row)} tokens and the context of {model.name} is {model.n_ctx}; cut it.")
        if len(row) and not (min(row) >= 0 and max(row) < model.d_vocab):
            wrong = min(row) if min(row) < 0 else max(row)
            raise ValueError(f"row {n} has token id {wrong}; {model.name} has ids from 0 to {model.d_vocab - 1}.")
    return rows


def own_rows(
    model: Model,
    prompts: Sequence[str | Rendered],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[int]]:
    """Each prompt with the model's own continuation, as one row: reasoning happens where the model writes."""
    options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "batch_size": 64}
    said = generate(model, prompts, **options, progress=progress)
    return [model.encode(prompt) + list(tokens) for prompt, tokens in zip(prompts, said.tokens, strict=True)]


def openings(model: Model, rows: Sequence[Sequence[int]], n: int) -> list[Rendered]:
    """The first halves of `n` of the rows, evenly spread, as prompts to go on from."""
    chosen = [rows[i * len(rows) // n] for i in range(min(n, len(rows)))] if n else []
    texts = [model.tokenizer.decode(row[: max(1, len(row) // 2)], skip_special_tokens=False) for row in chosen]
    return [Rendered(text, False, None) for text in texts if text.strip()]


def _cut(document: Sequence[int], room: int) -> Iterator[list[int]]:
    """Rows of one document; what is left over is a row if it is half as long."""
    for n in range(0, len(document), room):
        if n == 0 or len(document) - n >= room // 2:
            yield list(document[n : n + room])


def _without(document: Sequence[int], bos: int | None) -> Sequence[int]:
    return document[1:] if bos is not None and document and document[0] == bos else document


def _ids(model: Model, record: Any, source: str) -> list[int]:
    """Token ids of one document."""
    if isinstance(record, str):
        return model.tokenizer(record, verbose=False)["input_ids"]
    if not isinstance(record, Mapping):
        raise ValueError(f"{source} has a record that is a {type(record).__name__}; give objects or strings.")
    for name in TOKENS:
        if name in record:
            tokens = np.asarray(record[name])
            if tokens.dtype.kind not in "iu" or tokens.ndim != 1:
                raise ValueError(f"{source} has {name} that are no whole numbers ({record[name]!r}); give token ids.")
            return tokens.tolist()
    if isinstance(record.get("text"), str):
        return model.tokenizer(record["text"], verbose=False)["input_ids"]
    messages = record.get("messages") or _dialogue(record)
    if not messages:
        raise ValueError(
            f"{source} has records with {sorted(record)}; give text, messages, question and answer, or tokens."
        )
    if getattr(model.tokenizer, "chat_template", None) is None:
        turns = "\n".join(str(message["content"]) for message in messages)
        return model.tokenizer(turns, verbose=False)["input_ids"]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False)
    return model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _dialogue(record: Mapping[str, Any]) -> list[dict[str, str]]:
    asked = next((record[name] for name in ASKED if isinstance(record.get(name), str)), None)
    answered = next((record[name] for name in ANSWERED if isinstance(record.get(name), str)), None)
    if asked is None or answered is None:
        return []
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _records(source: str | Path) -> Iterator[Any]:
    if isinstance(source, str) and source.startswith(HUB):
        from datasets import load_dataset

        return iter(load_dataset(source.removeprefix(HUB), split="train"))  # pyright: ignore[reportArgumentType]
    path = Path(source)
    if not path.exists():
        raise ValueError(f"nothing at {path}; give a file, a folder that `datasets` saved, or {HUB}owner/name.")
    readers = {".jsonl": _json_lines, ".parquet": _parquet, ".npy": _array, ".safetensors": _tensor}
    reader = _saved if path.is_dir() else readers.get(path.suffix, _paragraphs)
    try:
        return iter(list(reader(path)))
    except (ValueError, OSError, EOFError, KeyError, SafetensorError) as error:  # whatever the libraries say of damage
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read ({reason}); check the file.") from error


def _paragraphs(path: Path) -> Iterator[str]:
    return (p.strip() for p in path.read_text(encoding="utf8").split("\n\n") if p.strip())


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _parquet(path: Path) -> Iterator[Any]:
    import pandas

    return iter(pandas.read_parquet(path).to_dict("records"))


def _array(path: Path) -> Iterator[Any]:
    return _token_rows(np.load(path, allow_pickle=False))


def _tensor(path: Path) -> Iterator[Any]:
    from safetensors.numpy import load_file

    return _token_rows(load_file(path)["tokens"])


def _token_rows(tokens: Any) -> Iterator[Any]:
    if tokens.dtype.kind not in "iu" or tokens.ndim not in (1, 2):
        raise ValueError(f"it holds {tokens.dtype} of shape {tokens.shape}, not whole numbers, [row, position]")
    return ({"tokens": row} for row in (tokens if tokens.ndim == 2 else tokens[None]))


def _saved(path: Path) -> Iterator[Any]:
    from datasets import DatasetDict, load_from_disk

    found = load_from_disk(str(path))
    return iter(found["train"] if isinstance(found, DatasetDict) else found)  # pyright: ignore[reportReturnType]
