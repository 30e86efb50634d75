"""Which benchmarks there are, and how each is found and read."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..task import Item, Kind
from . import choices, logic, relations, worked
from .hub import Hub
from .rows import File, Numbered, Row


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is found and read."""

    kind: Kind
    item: Callable[[Row], Item]
    pattern: str
    """Its files' names within a folder, in full; a group is the part."""

    hub: Hub | None = None
    format: str | None = None
    """Where it is not the benchmark's own name."""

    id: str | None = None
    """The field that identifies a row; otherwise its number does."""

    cloze: bool = False
    """The questions are sentences to go on from, in no chat format."""

    exam: str = ""
    """How the exam's name begins, in the concise_cot_logs."""

    complete: Callable[[list[Numbered], File, Sequence[File]], list[Numbered]] = lambda rows, file, files: rows
    """The rows of a file, with what they need from the other files of the source."""

    @property
    def has_parts(self) -> bool:
        return re.compile(self.pattern).groups > 0


def _exam(name: str) -> Benchmark:
    files = rf"[^/]*gpt-4_-_baseline_-_{name}[^/]*\.txt"
    return Benchmark("reasoning", choices.exam, files, format="concise_cot_logs", exam=name)


BENCHMARKS: Mapping[str, Benchmark] = {
    "gsm8k": Benchmark("reasoning", worked.gsm8k, r"test\.jsonl", Hub("openai/gsm8k", "test", "main")),
    "svamp": Benchmark("reasoning", worked.svamp, r"SVAMP\.json", Hub("ChilleD/SVAMP", "test"), id="ID"),
    "bbh": Benchmark("reasoning", choices.bbh, r"(\w+)\.json", Hub("SaylorTwift/bbh", "test", part="config")),
    "strategyqa": Benchmark(
        "reasoning", logic.strategyqa, r"dev\.json", Hub("tasksource/strategy-qa", "train"), id="qid"
    ),
    "prontoqa": Benchmark(
        "reasoning", logic.prontoqa, r"(?:prontoqa_)?dev\.json", Hub("renma/ProntoQA", "validation"), id="id"
    ),
    "logical_deduction": Benchmark(
        "reasoning", choices.logical_deduction, r"(?:logical_deduction_)?dev\.json", id="id"
    ),
    "babi": Benchmark(
        "reasoning", logic.babi, r"qa(\d+)_[^/]*_test\.txt", Hub("Muennighoff/babi", "test", part="task")
    ),
    "lre": Benchmark("knowledge", relations.lre, r"(?:[a-z]+__)?(\w+)\.json", cloze=True),
    "known_1000": Benchmark("knowledge", relations.known_1000, r"known_1000\.json", id="known_id", cloze=True),
    "pararel": Benchmark(
        "knowledge",
        relations.pararel,
        r"trex_lms_vocab(?:/|__)(P\d+)\.jsonl",
        id="uuid",
        cloze=True,
        complete=relations.with_pattern,
    ),
    "mmlu": Benchmark("knowledge", choices.mmlu, r"(\w+)_test\.csv", Hub("cais/mmlu", "test", part="config")),
    "nq_open": Benchmark(
        "knowledge",
        relations.nq_open,
        r"NQ-open\.dev\.jsonl",
        Hub("google-research-datasets/nq_open", "validation"),
    ),
    "arc": _exam("arc"),
    "aqua": _exam("aqua"),
}
