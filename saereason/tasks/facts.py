"""Facts about countries, from the MIT-licensed package countryinfo, as knowledge tasks."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from .grading import contains
from .task import Item, Task

RELATIONS = {
    "capital": ("What is the capital of {country}?", "The capital of {country} is {answer}."),
    "currency": (
        "What is the ISO code of the currency of {country}?",
        "The currency code of {country} is {answer}.",
    ),
    "continent": ("On which continent is {country}?", "{country} is in {answer}."),
    "demonym": ("What are people from {country} called?", "People from {country} are called {answer}."),
}


def country_facts(relation: str = "capital") -> Task:
    """Every country of which the relation is known and has one answer, in alphabetical order.

    The gold solution states the fact in a sentence; the answer within it is what is worth scoring.
    """
    if relation not in RELATIONS:
        raise ValueError(f"no relation {relation!r}; there are {sorted(RELATIONS)}.")
    question, sentence = RELATIONS[relation]
    items = []
    for country, answer in _facts(relation):
        solution = sentence.format(country=country, answer=answer)
        start = solution.rindex(answer)
        span = (start, start + len(answer))
        items.append(Item(f"{relation}/{country}", question.format(country=country), answer, solution, (span,)))
    return Task(relation, "knowledge", tuple(items))


def _facts(relation: str) -> Iterator[tuple[str, str]]:
    for record in _countries():
        value = {
            "capital": record.get("capital"),
            "currency": (record.get("currencies") or [None])[0],
            "continent": record.get("region"),
            "demonym": record.get("demonym"),
        }[relation]
        if isinstance(value, str) and value.strip() and not set(value) & set("/,"):  # no lists
            country, answer = record["name"], value.strip()
            if answer not in country and not contains(country, answer):
                yield country, answer


@cache
def _countries() -> tuple[dict[str, Any], ...]:
    folder = files("countryinfo") / "data"
    paths = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    records = [json.loads(file.read_text(encoding="utf8")) for file in paths]
    named = {record["name"]: record for record in records if record.get("name")}  # one country has two files
    return tuple(named[name] for name in sorted(named))
