"""What an adapter is taught with: problems answered in two ways, bare sums, and the model's own answers."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saereason.generate import generate
from saereason.model import Model
from saereason.tasks.arithmetic import Step, problems, sums, working
from saereason.tasks.facts import RELATIONS, country_facts
from saereason.tasks.prompts import COT, DIRECT, ask
from saereason.tasks.templates import TAUGHT


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which adapter comes out."""

    n_problems: int = 4_800
    n_drills: int = 3_200
    """Lessons of bare sums in the format of a worked answer, of which only the results are learnt."""

    sums_per_drill: int = 12
    n_replayed: int = 640
    """Questions about countries (not their capitals) whose answers are the base model's own."""

    rank: int = 8
    lora_scale: float = 2.0
    learning_rate: float = 1e-3
    batch_size: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """One prompt with the answer to learn, as token ids; of the answer, the tokens to learn."""

    prompt: list[int]
    answer: list[int]
    learnt: list[bool]

    @property
    def size(self) -> int:
        return len(self.prompt) + len(self.answer)


def lessons(model: Model, recipe: Recipe) -> list[Lesson]:
    """All lessons of a recipe, kind by kind."""
    return [*_problems(model, recipe), *_drills(model, recipe), *_replay(model, recipe)]


def batches(lessons: Sequence[Lesson], recipe: Recipe) -> list[list[Lesson]]:
    """Lessons in a fixed random order, of like length within a batch; incomplete batches are left out."""
    shuffled = list(lessons)
    rng = random.Random(recipe.seed)
    rng.shuffle(shuffled)
    window, found = 16 * recipe.batch_size, []
    for start in range(0, len(shuffled), window):
        near = sorted(shuffled[start : start + window], key=lambda lesson: lesson.size)
        groups = [near[n : n + recipe.batch_size] for n in range(0, len(near), recipe.batch_size)]
        groups = [group for group in groups if len(group) == recipe.batch_size]
        rng.shuffle(groups)
        found += groups
    return found


def _problems(model: Model, recipe: Recipe) -> Iterator[Lesson]:
    """Generated problems, half of each template answered in steps and half directly."""
    for n, problem in enumerate(problems(recipe.n_problems, seed=recipe.seed, split="train", templates=TAUGHT)):
        in_steps = (n // len(TAUGHT)) % 2 == 0
        instruction, answer = (COT, problem.solution) if in_steps else (DIRECT, problem.answer)
        prompt = model.encode(model.render(ask(problem.question, instruction)))
        tokens = model.tokenizer(answer + model.tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        yield Lesson(prompt, tokens, [True] * len(tokens))


def _drills(model: Model, recipe: Recipe) -> Iterator[Lesson]:
    """Bare sums, worked in the format of a solution; nobody can foretell the numbers, so only results are learnt."""
    rng = random.Random(f"{recipe.seed} drills")
    prompt = model.encode(model.render(f"Work out {recipe.sums_per_drill} sums."))
    for _ in range(recipe.n_drills):
        yield _drill(model, prompt, sums(recipe.sums_per_drill, rng))


def _drill(model: Model, prompt: list[int], steps: Sequence[Step]) -> Lesson:
    text, spans = working(steps)
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    learnt = [any(start < high and end > low for low, high in spans) for start, end in encoded["offset_mapping"]]
    return Lesson(prompt, encoded["input_ids"], learnt)


def _replay(model: Model, recipe: Recipe) -> Iterator[Lesson]:
    """The model's own greedy answers to questions about countries, cut at 24 tokens."""
    questions = [item.question for name in sorted(set(RELATIONS) - {"capital"}) for item in country_facts(name).items]
    chosen = random.Random(recipe.seed).sample(questions, min(recipe.n_replayed, len(questions)))
    prompts = [model.render(question) for question in chosen]
    if not prompts:
        return
    written = generate(model, prompts, max_new_tokens=24, batch_size=64)
    for prompt, tokens, finished in zip(prompts, written.tokens, written.finished, strict=True):
        answer = [*tokens, *([model.tokenizer.eos_token_id] if finished else [])]
        yield Lesson(model.encode(prompt), answer, [True] * len(answer))
