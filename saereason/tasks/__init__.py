"""What the model is asked, and how its answers are graded."""

from .arithmetic import Problem, Step, problems, split_of
from .facts import RELATIONS, country_facts
from .grading import Outcome, grade
from .prompts import COT, DIRECT, ask
from .splits import confirmation_task, discovery_task, split_task
from .task import Item, Task, load_task, word_problems
from .templates import HELD_OUT, TAUGHT, Template

__all__ = [
    "COT",
    "DIRECT",
    "HELD_OUT",
    "RELATIONS",
    "TAUGHT",
    "Item",
    "Outcome",
    "Problem",
    "Step",
    "Task",
    "Template",
    "ask",
    "confirmation_task",
    "country_facts",
    "discovery_task",
    "grade",
    "load_task",
    "problems",
    "split_of",
    "split_task",
    "word_problems",
]
