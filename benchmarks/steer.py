"""Steered generation: plain Hugging Face without edits, saereason with one, TransformerBridge with a hook.

Greedy, 16 prompts of one length, 32 new tokens, SmolLM2-135M-Instruct in the fast precision. `over_plain` is steered
saereason's speed over plain generation's; `over_bridge` over the bridge's.
"""

import torch

import saereason as sr

from . import interleaved, report

N_PROMPTS, N_NEW, LAYER = 16, 32, 19


def main() -> None:
    model = sr.load_model("smollm2-135m")
    bridge = model.bridge()
    prompts = [f"The number {n} is" for n in range(10, 10 + N_PROMPTS)]
    tokens = torch.tensor([model.encode(prompt) for prompt in prompts])
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    edit = sr.AddVector(LAYER, vector, 0.1, sr.Everywhere())
    model.hf.generation_config.eos_token_id = None  # every side writes all of its tokens

    @torch.inference_mode()
    def plain() -> int:
        model.hf.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=N_NEW, do_sample=False)
        return N_PROMPTS * N_NEW

    @torch.inference_mode()
    def steered() -> int:
        with sr.steered(model, None, edit):
            model.hf.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=N_NEW, do_sample=False)
        return N_PROMPTS * N_NEW

    def add(resid, hook):  # noqa: ARG001
        return resid + (0.1 * vector).to(resid.dtype)

    @torch.inference_mode()
    def bridged() -> int:
        with bridge.hooks(fwd_hooks=[(f"blocks.{LAYER}.hook_out", add)]):
            bridge.generate(tokens, max_new_tokens=N_NEW, do_sample=False, stop_at_eos=False, verbose=False)
        return N_PROMPTS * N_NEW

    rates = interleaved({"plain": plain, "steered": steered, "bridge": bridged})
    ratios = {"over_plain": ("steered", "plain"), "over_bridge": ("steered", "bridge")}
    report(rates, ratios, unit="tokens a second", threads=torch.get_num_threads(), dtype=str(model.dtype))


if __name__ == "__main__":
    main()
