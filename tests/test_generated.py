"""Tasks from reasoning-gym, by the generator's name."""

import sys

import pytest

import saereason as sr
from saereason.effects import Grades
from saereason.executors import work_unit

RIGHT, WRONG, UNPARSABLE, TRUNCATED, LOOPING = sr.Outcome


@pytest.fixture
def generated():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    return lambda name, **how: sr.load_benchmark(f"reasoning-gym/{name}", **how)


def unit_of(model, trial):
    return work_unit(model, "dose", trial=trial).id


@pytest.mark.parametrize(
    "name", ["chain_sum", "fraction_simplification", "word_sorting", "countdown", "n_queens", "ransom_note", "acre"]
)
def test_golds_are_right_however_they_are_stated(generated, name):
    task = generated(name, n=3, seed=1)
    assert (task.name, task.kind, len(task)) == (f"reasoning-gym/{name}", "reasoning", 3)
    for item in task.items:
        for text in (item.answer, f"So.\nThe answer is {item.answer}", f"So\n<answer>\n{item.answer}\n</answer>"):
            assert sr.grade(text, item.answers, score=item.score) is RIGHT
        assert sr.grade("I cannot say", item.answers, score=item.score) in (WRONG, UNPARSABLE)
        assert sr.grade("Let us see", item.answers, score=item.score, finished=False) is TRUNCATED


def test_the_generator_says_what_is_right(generated):
    item = next(item for item in generated("fraction_simplification", n=5).items if "\\" not in item.answer)
    up, down = item.answer.split("/")
    assert sr.grade(f"The answer is {up}/{down}.", item.answers, score=item.score) is RIGHT
    assert sr.grade(f"It is {item.answer}, I think.", item.answers, score=item.score) is WRONG  # a mention
    item = generated("countdown", n=1).items[0]
    turned = f"0 + {item.answer}" if item.score(f"0 + {item.answer}") == 1.0 else f"({item.answer})"
    assert turned != item.answer and sr.grade(f"The answer is {turned}", item.answers, score=item.score) is RIGHT


def test_a_task_is_graded_by_its_scores(generated, model):
    task = generated("propositional_logic", n=2)  # it keeps no answers
    assert [item.answer for item in task.items] == ["", ""]
    judge = sr.Trial.of(model, task).judge
    assert isinstance(judge, Grades) and judge.scores == tuple(item.score for item in task.items)
    again, other = (sr.Trial.of(model, generated("propositional_logic", n=2, seed=seed)) for seed in (0, 1))
    ids = {unit_of(model, trial) for trial in (sr.Trial.of(model, task), again, other)}
    assert len(ids) == 2  # what a sweep keeps of it is found again
    assert judge(0, "The answer is nothing.", [], finished=True) is WRONG
    assert judge(0, "", [], finished=True) is UNPARSABLE
    assert judge(0, "So so so", [7] * 20, finished=False) is LOOPING


def test_draws_repeat_grow_and_differ_by_seed(generated):
    three, five = generated("chain_sum", n=3), generated("chain_sum", n=5)
    assert three.items == five.items[:3] and three == generated("chain_sum", n=3, seed=0)
    others = {item.question for item in generated("chain_sum", n=5, seed=1).items}
    assert not others & {item.question for item in five.items}  # the package's own seeds 0 and 1 share four of five
    assert "number" in five.direct and "nothing else" in generated("n_queens", n=1).direct


def test_what_cannot_be_generated_is_said(generated, monkeypatch):
    with pytest.raises(ValueError, match=r"^no generator 'chain_sums' in reasoning-gym; near it are \['chain_sum'"):
        generated("chain_sums", n=1)
    with pytest.raises(ValueError, match=r"no generator 'qqqq' in reasoning-gym; there are \['ab'"):
        generated("qqqq", n=1)
    for n in (None, 0):
        with pytest.raises(ValueError, match=f"generated without end, and n is {n}"):
            generated("chain_sum", n=n)
    with pytest.raises(ValueError, match="a source or a part was given"):
        generated("chain_sum", n=1, part="x")
    monkeypatch.setattr("saereason.tasks.published.generated.MOST_TRIES", 1)
    with pytest.raises(ValueError, match=r"gave \d+ different questions and 200 were asked for"):
        generated("coin_flip", n=200)


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ValueError, match="needs the package reasoning-gym, which is not there; install it with pip"):
        sr.load_benchmark("reasoning-gym/chain_sum", n=1)
