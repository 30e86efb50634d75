"""Train a LoRA adapter that reasons on request: a *taught* switch, the positive control of this toolkit.

Half of the problems are answered step by step under one instruction, half with a bare number under the other; bare
sums make the arithmetic sure, and some of the base's own answers to other questions keep it talking as it did. The
adapter is PEFT's; the loop is ours because it is twice as fast here: eager attention (the fused kernel's backward is
slow on CPUs), adapter in the model's precision with float32 master weights, the LM head on learnt tokens only.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from saereason.model import Model, pad
from saereason.runs import write_folder, write_json

from .lessons import Lesson, Recipe, batches, lessons

CHECKPOINT_EVERY = 50


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
    out = Path(out).absolute()
    told = {**asdict(recipe), "base_hash": model.hash}
    if _taught(out, told):
        return out
    material = lessons(model, recipe)
    order = batches(material, recipe)
    net = _with_adapter(model, recipe)
    weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
    masters = {name: p.detach().float().clone() for name, p in weights.items()}
    optimiser = torch.optim.AdamW(masters.values(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    checkpoint = out.with_name(out.name + ".checkpoint.safetensors")
    start = _restore(checkpoint, told, masters, optimiser)
    usual = sum(sum(lesson.learnt) for lesson in material) * recipe.batch_size / len(material)
    for step in range(start, len(order)):
        _copy(masters, weights)
        loss = _loss(net, order[step], model.pad_token) / usual
        loss.backward()
        _step(optimiser, masters, weights, recipe.learning_rate * pace(step, len(order)))
        progress(step + 1, len(order), loss.item())
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _save(checkpoint, told, step + 1, masters, optimiser)
    _copy(masters, weights)
    _write(net, model, told, out)
    checkpoint.unlink(missing_ok=True)
    return out


def _taught(out: Path, told: Mapping[str, Any]) -> bool:
    """True if the folder holds the adapter of this recipe and base. Raises ValueError if it holds anything else."""
    recipe = out / "recipe.json"
    if recipe.is_file():
        there = json.loads(recipe.read_text(encoding="utf8"))
        if there != told:
            raise ValueError(f"{out} holds an adapter of another recipe or base ({there}); give another folder.")
        return True
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} holds something else, which would be lost; give an empty or a new folder.")
    return False


def pace(step: int, n_steps: int) -> float:
    """Share of the learning rate: a linear warm-up over the first 4% of steps, then a cosine to a twentieth."""
    warm = max(1, n_steps // 25)
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, n_steps - warm)))


def _with_adapter(model: Model, recipe: Recipe) -> Any:
    """PEFT's model around this one, with a fresh adapter drawn from the recipe's seed."""
    from peft import LoraConfig, get_peft_model

    model.hf.set_attn_implementation("eager")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.lora_scale * recipe.rank),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():  # PEFT draws from the global generator
        torch.manual_seed(recipe.seed)
        return get_peft_model(model.hf, config, autocast_adapter_dtype=False)


def _loss(net: Any, lessons: Sequence[Lesson], pad_token: int) -> Tensor:
    """Summed cross-entropy of the learnt tokens; the LM head runs on no others.

    Summed, so that a token counts the same in a batch of long answers and in one of bare numbers.
    """
    inner = net.base_model.model
    batch = pad([x.prompt + x.answer for x in lessons], pad_token=pad_token, side="right", device=net.device)
    predicts = torch.zeros_like(batch.mask)
    for row, lesson in enumerate(lessons):
        predicts[row, len(lesson.prompt) - 1 : lesson.size - 1] = torch.tensor(lesson.learnt)
    resid = inner.base_model(input_ids=batch.tokens, attention_mask=batch.mask.long()).last_hidden_state
    logits = inner.get_output_embeddings()(resid[predicts])
    return cross_entropy(logits.float(), batch.tokens[:, 1:][predicts[:, :-1]], reduction="sum")


def _step(optimiser: Any, masters: Mapping[str, Tensor], weights: Mapping[str, Tensor], rate: float) -> None:
    """One step of the float32 masters, with the gradients that the adapter's own weights have gathered."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    for name, master in masters.items():
        master.grad = torch.zeros_like(master) if (grad := weights[name].grad) is None else grad.float()
        weights[name].grad = None
    torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
    optimiser.step()


def _copy(masters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, master in masters.items():
            weights[name].copy_(master)


def _write(net: Any, model: Model, told: Mapping[str, Any], out: Path) -> None:
    with write_folder(out) as folder:
        net.peft_config["default"].base_model_name_or_path = ""  # else PEFT asks the hub for it
        net.save_pretrained(str(folder))
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
        write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": model.name})
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's template; the card replaces it
        (folder / "recipe.json").write_text(json.dumps(told, indent=1) + "\n")


def _save(path: Path, told: Mapping[str, Any], step: int, masters: dict[str, Tensor], optimiser: Any) -> None:
    tensors = {f"weight {name}": master for name, master in masters.items()}
    for name, master in masters.items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{key} {name}"] = optimiser.state[master][key]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step), "recipe": json.dumps(told)})
    partial.rename(path)


def _restore(path: Path, told: Mapping[str, Any], masters: dict[str, Tensor], optimiser: Any) -> int:
    """Continue from a checkpoint of the same recipe, if there is one; returns the steps already done."""
    from safetensors import safe_open

    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["recipe"]) != told:
        raise ValueError(f"{path} is a checkpoint of another recipe or base; remove it, or teach into another folder.")
    tensors = load_file(path)
    for name, master in masters.items():
        master.copy_(tensors[f"weight {name}"])
        optimiser.state[master] = {key: tensors[f"{key} {name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
    return int(metadata["step"])
