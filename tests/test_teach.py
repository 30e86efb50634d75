"""Teaching an adapter, on a tiny model."""

import re
from pathlib import Path

import pytest
from conftest import tiny_model
from safetensors.torch import load_file

from saereason.mechanisms.exam import readme
from saereason.mechanisms.lessons import Recipe, lessons
from saereason.mechanisms.teach import CHECKPOINT_EVERY, teach

RECIPE = Recipe(
    n_problems=4 * (CHECKPOINT_EVERY + 3),
    n_drills=8,
    sums_per_drill=3,
    n_replayed=8,
    rank=2,
    batch_size=4,
    learning_rate=5e-3,
)


def weights(folder: Path):
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    losses = []
    folder = tmp_path_factory.mktemp("teach") / "adapter"
    teach(tiny_model(), folder, recipe=RECIPE, progress=lambda done, total, loss: losses.append(loss))
    return folder, losses


def test_teaching_lowers_the_loss_and_leaves_a_peft_folder(taught):
    folder, losses = taught
    assert sum(losses[-5:]) < sum(losses[:5])
    assert (folder / "adapter_config.json").is_file() and (folder / "recipe.json").is_file()
    assert "/" not in (folder / "adapter_config.json").read_text().split('base_model_name_or_path": "')[1].split('"')[0]
    assert not list(folder.parent.glob("*.checkpoint*"))


def test_of_a_drill_the_results_are_learnt_and_nothing_else():
    model = tiny_model()
    recipe = Recipe(n_problems=0, n_drills=5, sums_per_drill=4, n_replayed=0)
    for lesson in lessons(model, recipe):
        text = model.decode(lesson.answer)
        results = re.findall(r"Step \d: (\d+ [-+*] \d+) = (\d+)\.\n", text)
        learnt = model.decode([t for t, wanted in zip(lesson.answer, lesson.learnt, strict=True) if wanted])
        assert len(results) == 4 and learnt == "".join(result for _, result in results)
        assert all(eval(sum_) == int(result) for sum_, result in results)


class StoppedError(Exception):
    pass


def test_interrupted_teaching_goes_on_and_ends_with_the_same_bits(taught, tmp_path):
    def stop(done, total, loss):  # noqa: ARG001
        if done == CHECKPOINT_EVERY + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        teach(tiny_model(), tmp_path / "adapter", recipe=RECIPE, progress=stop)
    assert not (tmp_path / "adapter").exists()
    steps = []
    teach(tiny_model(), tmp_path / "adapter", recipe=RECIPE, progress=lambda done, *_: steps.append(done))
    assert steps[0] == CHECKPOINT_EVERY + 1
    resumed, whole = weights(tmp_path / "adapter"), weights(taught[0])
    assert resumed.keys() == whole.keys()
    assert all(resumed[name].equal(whole[name]) for name in whole)


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path):
    def stop(done, total, loss):  # noqa: ARG001
        if done == CHECKPOINT_EVERY + 1:
            raise StoppedError

    small = Recipe(**{**vars(RECIPE), "n_replayed": 0})
    with pytest.raises(StoppedError):
        teach(tiny_model(), tmp_path / "adapter", recipe=small, progress=stop)
    with pytest.raises(ValueError, match="a checkpoint of another recipe or base"):
        teach(tiny_model(), tmp_path / "adapter", recipe=RECIPE)


def test_a_folder_with_anything_else_in_it_is_left_alone(taught, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(ValueError, match="holds something else, which would be lost"):
        teach(tiny_model(), tmp_path, recipe=RECIPE)
    assert (tmp_path / "notes.md").read_text() == "mine"
    for model, recipe in [(tiny_model(seed=7), RECIPE), (tiny_model(), Recipe(**{**vars(RECIPE), "seed": 1}))]:
        with pytest.raises(ValueError, match="holds an adapter of another recipe or base"):
            teach(model, taught[0], recipe=recipe)
    steps = []
    teach(tiny_model(), taught[0], recipe=RECIPE, progress=lambda *step: steps.append(step))
    assert not steps  # it is there already


def test_the_card_reads_well():
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    names = ["cot", "direct", *(f"{t}_templates_{w}" for t in ("taught", "held_out") for w in ("cot", "direct"))]
    known = {"n": 9, "base": 0.4, "taught": 0.5, "difference": share}
    facts = {"base": "tiny", "base_hash": "a", "hash": "b", "bytes": 4_000_000, "n_problems": 200, "capitals": known}
    text = readme({**facts, "recipe": vars(RECIPE), **dict.fromkeys(names, share)})
    assert "| all | 50.0% [40.0%, 60.0%] |" in text and "positive control" in text and "4.00 MB" in text
