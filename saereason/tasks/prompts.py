"""The two instructions under which a question is asked."""

DIRECT = "Answer with only a number."
COT = "Let's think step by step."


def ask(question: str, instruction: str) -> str:
    """The user's message: the question, then the instruction on a line of its own."""
    return f"{question}\n{instruction}"
