"""Train a LoRA adapter that reasons on request: a *taught* switch, the positive control of this toolkit.

Half of the problems are answered step by step under one instruction, half with a bare number under the other; some
of the base's own answers to other questions are mixed in, so that it does not forget how it talks. The
adapter is PEFT's; the loop is ours because it is twice as fast here: eager attention (the fused kernel's backward is
slow on CPUs), adapter in the model's precision with float32 master weights, the LM head on answer tokens only.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from saereason.generate import generate
from saereason.model import Model, pad
from saereason.runs import write_folder, write_json
from saereason.tasks.arithmetic import problems
from saereason.tasks.facts import RELATIONS, country_facts
from saereason.tasks.prompts import COT, DIRECT, ask
from saereason.tasks.templates import TAUGHT

CHECKPOINT_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which adapter comes out."""

    n_problems: int = 6_400
    n_replayed: int = 640
    """Questions about countries (not their capitals) whose answers are the base model's own."""

    rank: int = 8
    lora_scale: float = 2.0
    learning_rate: float = 1e-3
    batch_size: int = 16
    seed: int = 0

    @property
    def n_steps(self) -> int:
        return (self.n_problems + self.n_replayed) // self.batch_size

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up over the first 4% of steps, then a cosine to a twentieth."""
        warm = max(1, self.n_steps // 25)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = torch.tensor((step - warm) / max(1, self.n_steps - warm))
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.pi * done)).item())


@dataclass(frozen=True)
class Lesson:
    """One prompt with the answer to learn, as token ids."""

    prompt: list[int]
    answer: list[int]

    @property
    def size(self) -> int:
        return len(self.prompt) + len(self.answer)


def teach(
    model: Model,
    out: str | Path,
    *,
    recipe: Recipe = Recipe(),
    progress: Callable[[int, int, float], None] = lambda step, n_steps, loss: None,
) -> Path:
    """Train the adapter into `out` (a PEFT folder) and return that path.

    `model` is changed: load it for this alone. Interrupted training goes on from the last checkpoint beside `out`
    and ends with the same bits.
    """
    from peft import LoraConfig, get_peft_model

    out = Path(out)
    torch.manual_seed(recipe.seed)  # PEFT draws LoRA's initial weights from the global generator
    lessons = [*_problems(model, recipe), *_replay(model, recipe)]
    model.hf.set_attn_implementation("eager")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.lora_scale * recipe.rank),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    net = get_peft_model(model.hf, config, autocast_adapter_dtype=False)
    weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
    masters = {name: p.detach().float().clone() for name, p in weights.items()}
    optimiser = torch.optim.AdamW(masters.values(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    checkpoint = out.with_name(out.name + ".checkpoint.safetensors")
    start = _restore(checkpoint, recipe, masters, optimiser)
    batches = list(_batches(lessons, recipe))
    usual = sum(len(lesson.answer) for lesson in lessons) * recipe.batch_size / len(lessons)
    for step in range(start, len(batches)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        _copy(masters, weights)
        loss = _loss(net, batches[step], model.tokenizer.pad_token_id) / usual
        loss.backward()
        for name, master in masters.items():
            master.grad = torch.zeros_like(master) if (grad := weights[name].grad) is None else grad.float()
            weights[name].grad = None
        torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
        optimiser.step()
        progress(step + 1, len(batches), loss.item())
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _save(checkpoint, recipe, step + 1, masters, optimiser)
    _copy(masters, weights)
    with write_folder(out) as folder:
        net.peft_config["default"].base_model_name_or_path = ""  # else PEFT asks the hub for it
        net.save_pretrained(str(folder))
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
        write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": model.name})
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's template; the card replaces it
        (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    return out


def _problems(model: Model, recipe: Recipe) -> Iterator[Lesson]:
    """Generated problems, half of each template answered in steps and half directly."""
    for n, problem in enumerate(problems(recipe.n_problems, seed=recipe.seed, split="train", templates=TAUGHT)):
        in_steps = (n // len(TAUGHT)) % 2 == 0
        instruction, answer = (COT, problem.solution) if in_steps else (DIRECT, problem.answer)
        prompt = model.encode(model.render(ask(problem.question, instruction)))
        ending = model.tokenizer.eos_token
        yield Lesson(prompt, model.tokenizer(answer + ending, add_special_tokens=False)["input_ids"])


def _replay(model: Model, recipe: Recipe) -> Iterator[Lesson]:
    """The model's own greedy answers to questions about countries, cut at 24 tokens."""
    questions = [item.question for name in sorted(set(RELATIONS) - {"capital"}) for item in country_facts(name).items]
    chosen = random.Random(recipe.seed).sample(questions, min(recipe.n_replayed, len(questions)))
    prompts = [model.render(question) for question in chosen]
    if not prompts:
        return
    written = generate(model, prompts, max_new_tokens=24, batch_size=64)
    for prompt, tokens, finished in zip(prompts, written.tokens, written.finished, strict=True):
        yield Lesson(model.encode(prompt), [*tokens, *([model.tokenizer.eos_token_id] if finished else [])])


def _batches(lessons: list[Lesson], recipe: Recipe) -> Iterator[list[Lesson]]:
    """Lessons in a fixed random order, of like length within a batch; the last, incomplete one is left out."""
    lessons = list(lessons)
    rng = random.Random(recipe.seed)
    rng.shuffle(lessons)
    window = 16 * recipe.batch_size
    for start in range(0, len(lessons), window):
        near = sorted(lessons[start : start + window], key=lambda lesson: lesson.size)
        groups = [near[n : n + recipe.batch_size] for n in range(0, len(near), recipe.batch_size)]
        groups = [group for group in groups if len(group) == recipe.batch_size]
        rng.shuffle(groups)
        yield from groups


def _loss(net: Any, lessons: Sequence[Lesson], pad_token: int) -> Tensor:
    """Summed cross-entropy of the answer tokens; the LM head runs on no others.

    Summed, so that a token counts the same in a batch of long answers and in one of bare numbers.
    """
    inner = net.base_model.model
    batch = pad([x.prompt + x.answer for x in lessons], pad_token=pad_token, side="right", device=net.device)
    predicts = torch.zeros_like(batch.mask)
    for row, lesson in enumerate(lessons):
        predicts[row, len(lesson.prompt) - 1 : lesson.size - 1] = True
    resid = inner.base_model(input_ids=batch.tokens, attention_mask=batch.mask.long()).last_hidden_state
    logits = inner.get_output_embeddings()(resid[predicts])
    return cross_entropy(logits.float(), batch.tokens[:, 1:][predicts[:, :-1]], reduction="sum")


def _copy(masters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, master in masters.items():
            weights[name].copy_(master)


def _save(path: Path, recipe: Recipe, step: int, masters: dict[str, Tensor], optimiser: Any) -> None:
    tensors = {f"weight {name}": master for name, master in masters.items()}
    for name, master in masters.items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{key} {name}"] = optimiser.state[master][key]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step), "recipe": json.dumps(asdict(recipe))})
    partial.rename(path)


def _restore(path: Path, recipe: Recipe, masters: dict[str, Tensor], optimiser: Any) -> int:
    """Continue from a checkpoint of the same recipe, if there is one; returns the steps already done."""
    from safetensors import safe_open

    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["recipe"]) != asdict(recipe):
        raise ValueError(f"{path} is a checkpoint of another recipe; remove it, or teach into another folder.")
    tensors = load_file(path)
    for name, master in masters.items():
        master.copy_(tensors[f"weight {name}"])
        optimiser.state[master] = {key: tensors[f"{key} {name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
    return int(metadata["step"])
