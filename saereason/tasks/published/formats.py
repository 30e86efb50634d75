"""What the rows of each public format look like, so that a file of another format is named and not misread."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .rows import File, Numbered

NUMBER = (int, float, str)


@dataclass(frozen=True)
class Format:
    """How a message describes it, and the fields by which a row is known."""

    shape: str
    fields: Mapping[str, type | tuple[type, ...]]

    def fits(self, row: Mapping[str, Any]) -> bool:
        return all(isinstance(row.get(name), kind) for name, kind in self.fields.items())


MODEL_SOLUTIONS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
LOGIC = {"context": str, "question": str, "options": list, "answer": str}

FORMATS = {
    "gsm8k": Format(
        "rows of `question` and `answer`, which ends in #### and a number", {"question": str, "answer": str}
    ),
    "svamp": Format("rows of `Body`, `Question`, `Answer`", {"Body": str, "Question": str, "Answer": NUMBER}),
    "bbh": Format("`examples` of `input` and `target`", {"input": str, "target": str}),
    "strategyqa": Format(
        "rows of `qid`, `question` and `answer`, true or false", {"qid": str, "question": str, "answer": bool}
    ),
    "prontoqa": Format(f"rows of {', '.join(LOGIC)} and `explanation`", {**LOGIC, "explanation": list}),
    "logical_deduction": Format(f"rows of {', '.join(LOGIC)}", LOGIC),
    "babi": Format(
        "numbered statements and questions", {"passage": str, "question": str, "answer": str, "supporting": list}
    ),
    "lre": Format(
        "`prompt_templates` and `samples` of `subject` and `object`",
        {"prompt_templates": list, "subject": str, "object": str},
    ),
    "known_1000": Format("rows of `prompt`, `subject` and `attribute`", dict.fromkeys(("prompt", "attribute"), str)),
    "pararel": Format("rows of `sub_label` and `obj_label`", dict.fromkeys(("sub_label", "obj_label", "uuid"), str)),
    "mmlu": Format("CSV rows of a question, choices and a letter", {"question": str, "choices": list, "answer": str}),
    "nq_open": Format("rows of `question` and a list `answer`", {"question": str, "answer": list}),
    "concise_cot_logs": Format("blocks under `### Model: … ###`", {"exam": str, "choices": dict, "responses": list}),
    "model_solutions": Format(
        "rows of `question`, `ground_truth` and solutions", {"question": str, **dict.fromkeys(MODEL_SOLUTIONS, dict)}
    ),
}


def check_format(rows: list[Numbered], file: File, wanted: str) -> None:
    """Raises ValueError, saying what the file looks like, where its first row is not of the format.

    A row that fits several formats looks like the one with the most fields.
    """
    first = rows[0][1]
    fitting = sorted((name for name, known in FORMATS.items() if known.fits(first)), key=_size)
    if wanted not in fitting or _size(fitting[-1]) > _size(wanted):
        found = f"looks like {fitting[-1]}" if fitting else f"has rows with {sorted(first)}, which no format here has"
        raise ValueError(f"{file} {found}; {wanted} needs {FORMATS[wanted].shape}.")


def _size(name: str) -> int:
    return len(FORMATS[name].fields)
