"""A model under interventions inside lm-evaluation-harness."""

import json

import pytest
import torch

import saereason as sr

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

SUMS = [(1, 2), (3, 4), (2, 2), (5, 12)]
STOP = ["tR", "<|im_start|>"]


@pytest.fixture
def tasks(tmp_path):
    """A choice between answers, a text to be written, and a text to be predicted from its first token on."""
    rows = [
        {"q": f"{a} + {b}?", "choices": [f"{a + b}", f"{a + b + 1}", "none"], "target": f"{a + b}"} for a, b in SUMS
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def task(name, kind, **more):
        return {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "sums.jsonl")}, "cache_dir": str(tmp_path)},
            "test_split": "test",
            "output_type": kind,
            "doc_to_text": "{{q}} A:",
        } | more

    writes = {"generation_kwargs": {"until": STOP, "max_gen_toks": 12}, "metric_list": [{"metric": "exact_match"}]}
    return [
        task("chosen", "multiple_choice", doc_to_choice="choices", doc_to_target=0, metric_list=[{"metric": "acc"}]),
        task("written", "generate_until", doc_to_target="target", **writes),
        task("rolled", "loglikelihood_rolling", doc_to_text="", doc_to_target="{{q}}"),
    ]


def responses(lm, tasks):
    """The responses of each task's items, and what the results say of the model."""
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),  # to list all of lm_eval's takes seconds
        bootstrap_iters=0,
        log_samples=True,
    )
    found = {name: [sample["filtered_resps"] for sample in rows] for name, rows in results["samples"].items()}
    return found, results["config"]


def log_probs(chosen):
    return torch.tensor([value for item in chosen for value, _ in item], dtype=torch.float64)


PROMPTS = [f"{a} + {b}? A:" for a, b in SUMS]
CHOICES = [[f" {a + b}", f" {a + b + 1}", " none"] for a, b in SUMS]


def test_a_clean_model_gives_the_numbers_of_lm_evals_own(model, tasks):
    from lm_eval.models.huggingface import HFLM

    theirs, _ = responses(HFLM(model.hf, tokenizer=model.tokenizer, batch_size=3), tasks)
    ours, said = responses(sr.harness_model(model, batch_size=3), tasks)
    torch.testing.assert_close(log_probs(ours["chosen"]), log_probs(theirs["chosen"]), atol=1e-4, rtol=0)
    assert [likely for item in ours["chosen"] for _, likely in item] == [
        likely for item in theirs["chosen"] for _, likely in item
    ]
    assert ours["written"] == theirs["written"]
    torch.testing.assert_close(torch.tensor(ours["rolled"]), torch.tensor(theirs["rolled"]), atol=1e-3, rtol=0)
    assert said["model_hash"] == model.hash and said["interventions"] == []


@pytest.mark.parametrize("when", [sr.LastPromptToken(), sr.Generated(), sr.Everywhere()], ids=str)
def test_a_steered_model_gives_what_metrics_and_generate_give(model, topk_saes, tasks, when):
    edit = sr.Add(sr.Feature(1, 3), 8.0, when=when)
    got, said = responses(sr.harness_model(model, topk_saes, [edit], batch_size=3), tasks[:2])
    flat = [(prompt, choice) for prompt, choices in zip(PROMPTS, CHOICES, strict=True) for choice in choices]
    metric = sr.LogProb.of(model, *zip(*flat, strict=True))
    n_tokens = torch.tensor([len(item.continuation) for item in metric.items])
    with sr.steered(model, topk_saes, edit):
        expected = metric(model) * n_tokens
        texts = sr.generate(model, PROMPTS, max_new_tokens=12, stop=STOP).texts
    torch.testing.assert_close(log_probs(got["chosen"]), expected, atol=1e-4, rtol=0)
    assert (expected - metric(model) * n_tokens).abs().max() > 0.1
    assert got["written"] == [[text.split("tR")[0]] for text in texts]
    assert said["interventions"] == [f"Add(L1/3, 8), {when}"]


def asked(*arguments):
    from lm_eval.api.instance import Instance

    return [Instance("generate_until", {}, pair, 0) for pair in arguments]


def test_settings_of_generation_are_kept_or_refused(model):
    lm = sr.harness_model(model, seed=3)
    sampled = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    texts = lm.generate_until(asked(("Hi", sampled), ("Hi", sampled)))
    assert texts == list(sr.generate(model, ["Hi", "Hi"], max_new_tokens=8, temperature=1.0, seed=3).texts)
    assert texts[0] != texts[1]
    greedy = sampled | {"do_sample": False, "top_p": 0.9}
    assert lm.generate_until(asked(("Hi", greedy))) == list(sr.generate(model, ["Hi"], max_new_tokens=8).texts)
    with pytest.raises(ValueError, match=r"the task samples with \['top_p'\], which saereason lacks"):
        lm.generate_until(asked(("Hi", sampled | {"top_p": 0.9})))


def test_nothing_is_cut_off_or_silent(model, topk_saes):
    with pytest.raises(ValueError, match="a request has 600 tokens and the context of tiny-llama is 512"):
        sr.harness_model(model)._loglikelihood_tokens([(None, [5] * 600, [6])])
    edit = sr.Add(sr.Feature(1, 3), 8.0, when=sr.Generated())
    with pytest.raises(sr.SilentEditError, match="never fired"):  # it is the context that predicts one token
        sr.harness_model(model, topk_saes, [edit])._loglikelihood_tokens([(None, [5, 7], [6])])
    with pytest.raises(ValueError, match="batch_size is 0"):
        sr.harness_model(model, batch_size=0)
    two = sr.Patch(1, (torch.ones(9, 32), torch.zeros(9, 32)))
    for apart in (sr.Add(sr.Feature(1, 3), 8.0, when=sr.Decay(0.5, when=sr.OnRows((0,)))), two):
        with pytest.raises(ValueError, match="differs by row and the harness puts requests into rows as it likes"):
            sr.harness_model(model, topk_saes, [apart])


def test_the_tokenizer_of_the_model_is_left_alone(model):
    before = model.tokenizer.padding_side, model.tokenizer.pad_token
    assert sr.harness_model(model).tokenizer is not model.tokenizer
    assert (model.tokenizer.padding_side, model.tokenizer.pad_token) == before
