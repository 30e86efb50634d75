"""The harness's requests, run by saereason; imported only once lm_eval is there."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor

from saereason import hooks
from saereason.generate import generate
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE
from saereason.steering import Intervention, steered

Tokens = tuple[int, ...]
GENERATION = {"until", "max_gen_toks", "do_sample", "temperature"}


LM: Any = HFLM  # the decorator hides its type


class HarnessLM(LM):
    """lm_eval's own model in how it reads texts and chats, and saereason's in how it scores and writes."""

    def __init__(
        self,
        model: Model,
        saes: Mapping[int, SAE] | None,
        interventions: tuple[Intervention, ...],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        tokenizer = copy.deepcopy(model.tokenizer)  # lm_eval gives it a padding token
        super().__init__(model.hf, backend="causal", tokenizer=tokenizer, batch_size=batch_size)
        self.measured, self.saes, self.interventions, self.seed = model, saes, interventions, seed

    def get_model_info(self) -> dict[str, Any]:
        """What the results say of the model."""
        return {
            "model_name": self.measured.name,
            "model_hash": self.measured.hash,
            "model_dtype": str(self.measured.dtype),
            "interventions": [f"{intervention}, {intervention.when}" for intervention in self.interventions],
        }

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]],
        disable_tqdm: bool = False,  # noqa: ARG002
        override_bs: int | None = None,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        """Of each continuation its log-probability and whether it is the likeliest one.

        Requests that differ in the last token of the continuation are one row.
        """
        asked: dict[tuple[Tokens, Tokens], list[int]] = {}
        for n, (_, context, continuation) in enumerate(requests):
            asked.setdefault((tuple(context), tuple(continuation[:-1])), []).append(n)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with steered(self.measured, self.saes, *self.interventions):
            for row, scores in self._scored(list(asked)):
                for n in asked[row]:
                    text, _, continuation = requests[n]
                    targets = torch.tensor(continuation, device=scores.device)
                    likely = bool((scores.argmax(-1) == targets).all())
                    answers[n] = (float(scores.gather(-1, targets[:, None]).sum()), likely)
                    if text is not None:
                        self.cache_hook.add_partial("loglikelihood", text, answers[n])
        return answers

    @torch.inference_mode()
    def _scored(
        self, rows: Sequence[tuple[Tokens, Tokens]]
    ) -> Iterator[tuple[tuple[Tokens, Tokens], Float[Tensor, "token d_vocab"]]]:
        """Each context with the beginning of a continuation, and the log-probabilities of what follows the context."""
        order = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
        for start in range(0, len(order), self.batch_size):
            together = order[start : start + self.batch_size]
            batch = pad([a + b for a, b in together], pad_token=self.measured.pad_token, device=self.measured.device)
            if batch.tokens.shape[1] > self.measured.n_ctx:
                raise ValueError(
                    f"a request has {batch.tokens.shape[1]} tokens and the context of {self.measured.name} is "
                    f"{self.measured.n_ctx}; ask with fewer examples."
                )
            keep = max(len(b) for _, b in together) + 1
            with hooks.prompts(torch.tensor([len(a) for a, _ in together])):
                logits = hooks.run(self.measured, batch, logits_to_keep=keep, use_cache=False).logits
            for row, of_row in zip(together, logits.float().log_softmax(-1), strict=True):
                yield row, of_row[-len(row[1]) - 1 :]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The text after each context, without the stop string that ended it."""
        alike: dict[str, list[int]] = {}
        for n, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(n)
        texts = [""] * len(requests)
        with steered(self.measured, self.saes, *self.interventions):
            for numbers in alike.values():
                how = self._how(requests[numbers[0]].args[1])
                prompts = [self._prompt(requests[n].args[0]) for n in numbers]
                written = generate(self.measured, prompts, seed=self.seed, batch_size=self.batch_size, **how)
                for n, text in zip(numbers, written.texts, strict=True):
                    texts[n] = postprocess_generated_text(text, how["stop"], None)
                    self.cache_hook.add_partial("generate_until", requests[n].args, texts[n])
        return texts

    def _how(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The harness's settings as `generate` knows them."""
        settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), self.max_gen_toks))
        greedy = not settings["do_sample"] or not settings.get("temperature")
        unknown = set() if greedy else set(settings) - GENERATION
        if unknown:
            raise ValueError(f"the task samples with {sorted(unknown)}, which saereason lacks; use temperature alone.")
        return {
            "stop": [stop for stop in settings["until"] if stop],
            "max_new_tokens": settings["max_gen_toks"],
            "temperature": 0.0 if greedy else settings["temperature"],
        }

    def _prompt(self, context: str) -> Rendered:
        """With the special tokens that `loglikelihood` would give it: none of its own where it begins with one."""
        return Rendered(context, has_bos_prefix(context, self.tokenizer.bos_token), None)
