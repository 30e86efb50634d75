"""The concise_cot_logs: problems of an exam with a model's sampled answers, in blocks of text."""

import re
from collections.abc import Iterator
from typing import Any

START = "### Model:"
HEADER = re.compile(r"^### Model: (.+?) \| Prompt: (.+?) \| Exam: (.+?) \| Problem (\d+) of \d+ ###$", re.MULTILINE)
BLOCK = re.compile(
    r"\nTopic: [^\n]*\nQuestion: (?P<question>.+?)\nChoices:\n(?P<choices>.+?)"
    r"\n(?P<responses>Response 0:\n.+?)\nVotes: .+?\nCorrect Answer: (?P<correct>\S+)\n",
    re.DOTALL,
)
CHOICE = re.compile(r"^  (\w): *(.*)$", re.MULTILINE)


def problems(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each problem with its choices by label, the label of the right one, and all responses."""
    headers = list(HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for n, (header, end) in enumerate(zip(headers, ends, strict=True), 1):
        block = BLOCK.match(text, header.end(), end)
        if block is None:
            raise ValueError(f"{where}, row {n} ({header[0]}) lacks a question, choices, responses or an answer.")
        yield (
            n,
            {
                "model": header[1],
                "prompt": header[2],
                "exam": header[3],
                "problem": int(header[4]),
                "question": block["question"],
                "choices": dict(CHOICE.findall(block["choices"])),
                "correct": block["correct"],
                "responses": [said.strip() for said in re.split(r"(?:^|\n)Response \d+:\n", block["responses"])[1:]],
            },
        )
