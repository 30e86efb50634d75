"""What the model is asked, and how its answers are graded."""

from .arithmetic import Problem, Step, problems, split_of
from .facts import RELATIONS, country_facts
from .grading import Outcome, grade
from .prompts import COT, DIRECT, ask
from .published import GradedText, TextPair, load_benchmark, load_pairs
from .splits import confirmation_task, discovery_task, split_task
from .task import Item, Task, load_task, word_problems
from .templates import HELD_OUT, LONGER, OTHER_OPERATIONS, TAUGHT, Template

__all__ = [
    "COT",
    "DIRECT",
    "HELD_OUT",
    "LONGER",
    "OTHER_OPERATIONS",
    "RELATIONS",
    "TAUGHT",
    "GradedText",
    "Item",
    "Outcome",
    "Problem",
    "Step",
    "Task",
    "Template",
    "TextPair",
    "ask",
    "confirmation_task",
    "country_facts",
    "discovery_task",
    "grade",
    "load_benchmark",
    "load_pairs",
    "load_task",
    "problems",
    "split_of",
    "split_task",
    "word_problems",
]
