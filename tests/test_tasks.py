"""Problems, facts and task files; grading is in test_grading.py."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saereason.tasks import (
    COT,
    DIRECT,
    HELD_OUT,
    RELATIONS,
    TAUGHT,
    Item,
    Outcome,
    Task,
    Template,
    ask,
    country_facts,
    grade,
    load_task,
    problems,
    split_of,
    word_problems,
)
from saereason.tasks.arithmetic import LARGEST_RESULT, OPERATIONS

SPLITS = ("train", "discovery", "confirmation")
EVERYTHING = (*TAUGHT, *HELD_OUT)
GSM8K = Path(__file__).parents[2] / "shared/data/reasoning/gsm8k/test.jsonl"


@pytest.fixture(scope="module")
def drawn():
    """Problems of every split, of two seeds, of taught and held-out templates."""
    return {
        (split, seed): problems(300, seed=seed, split=split, templates=EVERYTHING)
        for split in SPLITS
        for seed in (0, 1)
    }


# generated problems


def test_the_same_seed_draws_the_same_problems_and_another_seed_others():
    assert problems(40, seed=3, split="train") == problems(40, seed=3, split="train")
    assert problems(40, seed=3, split="train") != problems(40, seed=4, split="train")
    assert problems(20, seed=3, split="train") == problems(40, seed=3, split="train")[:20]


def test_problems_are_the_same_in_another_process():
    code = "from saereason.tasks import problems; print(problems(30, seed=5, split='discovery'))"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert out.strip() == str(problems(30, seed=5, split="discovery"))


def test_as_many_different_problems_come_as_were_asked_for(drawn):
    for found in drawn.values():
        assert len({(p.template, p.numbers) for p in found}) == len({p.question for p in found}) == len(found) == 300
    assert problems(0, seed=0, split="train") == ()


def test_no_problem_is_in_two_splits_whatever_the_seeds(drawn):
    held = {split: {(p.template, p.numbers) for seed in (0, 1) for p in drawn[split, seed]} for split in SPLITS}
    assert not any(held[a] & held[b] for a, b in combinations(SPLITS, 2))
    for (split, _), found in drawn.items():
        assert all(split_of(p.template, p.numbers) == split for p in found)


@given(st.sampled_from(EVERYTHING), st.lists(st.integers(2, 99), min_size=2, max_size=4))
@settings(max_examples=50)
def test_a_problem_has_one_split_however_its_numbers_are_held(template, numbers):
    assert split_of(template.key, numbers) == split_of(template.key, tuple(numbers)) in SPLITS


def test_splits_have_the_shares_they_should():
    counts = Counter(split_of("pond", (a, b)) for a in range(100) for b in range(100))
    assert [counts[split] / 10_000 for split in SPLITS] == pytest.approx([0.70, 0.15, 0.15], abs=0.015)


def test_intermediate_results_are_right_and_follow_the_story(drawn):
    programs = {template.key: template for template in EVERYTHING}
    for problem in (p for found in drawn.values() for p in found):
        template = programs[problem.template]
        values = dict(zip(template.letters, problem.numbers, strict=True))
        assert len(problem.steps) == len(template.working)
        for n, (step, line) in enumerate(zip(problem.steps, template.working, strict=True), 1):
            left, sign, right = line.split()
            assert (step.left, step.sign, step.right) == (values[left], sign, values[right])
            assert step.result == OPERATIONS[sign](step.left, step.right)
            assert 1 < step.result <= LARGEST_RESULT
            values[str(n)] = step.result
        assert problem.answer == str(problem.steps[-1].result)
        assert all(str(number) in problem.question for number in problem.numbers)
        assert "{" not in problem.question


def test_numbers_run_from_2_to_99_and_factors_to_9(drawn):
    every = [p for found in drawn.values() for p in found]
    assert {min(n for p in every for n in p.numbers), max(n for p in every for n in p.numbers)} == {2, 99}
    small = {template.key: [letter in template.small for letter in template.letters] for template in EVERYTHING}
    assert all(n <= 9 for p in every for n, factor in zip(p.numbers, small[p.template], strict=True) if factor)


def test_result_spans_hit_exactly_the_digits_after_each_equals_sign(drawn):
    for problem in (p for found in drawn.values() for p in found):
        text, spans = problem.solution, problem.result_spans()
        assert [text[a:b] for a, b in spans] == [str(step.result) for step in problem.steps]
        assert all(text[a - 2 : a] == "= " and text[b] == "." for a, b in spans)
        assert len(spans) == text.count("=")
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_taught_and_held_out_templates_are_many_and_different():
    assert len(TAUGHT) >= 12
    assert len(HELD_OUT) == 4
    for attribute in ("key", "story"):
        assert len({getattr(template, attribute) for template in EVERYTHING}) == len(EVERYTHING)
    assert {len(template.working) for template in TAUGHT} == {len(template.working) for template in HELD_OUT} == {2, 3}


def test_every_letter_of_a_template_is_used_by_its_working():
    for template in EVERYTHING:
        used = {symbol for line in template.working for symbol in line.split() if symbol.isalpha()}
        assert used == set(template.letters), template.key
        assert set(template.small) <= used


def test_templates_come_in_turn():
    found = problems(3 * len(TAUGHT), seed=0, split="train")
    assert Counter(p.template for p in found) == {template.key: 3 for template in TAUGHT}


def test_an_impossible_number_of_problems_is_an_error_not_an_endless_loop():
    few = Template("few", "{name} has {a} and {b}. How many?", ("a + b", "1 + a"), small="ab")
    with pytest.raises(ValueError, match=r"yield about \d+ different problems for train and 200 were asked for"):
        problems(200, seed=0, split="train", templates=[few])
    never = Template("never", "{name} has {a} and loses {b}. How many?", ("a - b", "1 - a"))
    with pytest.raises(ValueError, match="the template never gave no problem for train"):
        problems(1, seed=0, split="train", templates=[never])
    with pytest.raises(ValueError, match="-1 problems were asked for"):
        problems(-1, seed=0, split="train")
    with pytest.raises(ValueError, match="no templates"):
        problems(1, seed=0, split="train", templates=())


def test_all_problems_of_a_small_template_can_be_had():
    few = Template("few", "{name} has {a} and {b}. How many?", ("a + b", "1 + a"), small="ab")
    n = sum(split_of("few", (a, b)) == "train" for a in range(2, 10) for b in range(2, 10))
    assert len(problems(n, seed=0, split="train", templates=[few])) == n


# tasks


def test_a_word_problem_task_keeps_what_is_worth_scoring():
    task = word_problems(problems(30, seed=0, split="discovery"))
    assert (task.kind, len(task), len({item.id for item in task.items})) == ("reasoning", 30, 30)
    for item in task.items:
        assert item.solution[slice(*item.spans[-1])] == item.answer
        assert grade(item.solution, item.answer) is Outcome.RIGHT


def test_take_and_drop_part_a_task():
    task = word_problems(problems(10, seed=0, split="train"))
    assert task.take(4).items + task.drop(4).items == task.items
    assert len(task.take(99)) == 10


def test_prompts_carry_the_question_and_the_instruction(model):
    task = Task("t", "knowledge", (Item("1", "Why?", "x"),), system="Be brief.")
    plain, direct = task.prompts(model)[0], task.prompts(model, task.direct)[0]
    assert "Why?" in plain.text and DIRECT not in plain.text and "Be brief." in plain.text
    assert ask("Why?", DIRECT) in direct.text and direct.chat and direct.system == "Be brief."
    assert Task("t", "knowledge", task.items, chat=False).prompts(model, COT)[0].text == f"Why?\n{COT}"


@pytest.mark.parametrize("relation", RELATIONS)
def test_facts_state_an_answer_that_the_question_does_not_give_away(relation):
    task = country_facts(relation)
    assert task.kind == "knowledge" and len(task) > 150
    assert len({item.id for item in task.items}) == len({item.question for item in task.items}) == len(task)
    assert [item.id for item in task.items] == sorted(item.id for item in task.items)
    for item in task.items:
        ((start, end),) = item.spans
        assert item.solution[start:end] == item.answer and item.answer not in item.question
        assert not set(item.answer) & set("/,")
        assert grade(item.solution, item.answer) is Outcome.RIGHT
        assert grade(item.question, item.answer) is not Outcome.RIGHT


def test_facts_are_right_and_an_unknown_relation_is_named():
    answers = {item.id: item.answer for item in country_facts().items}
    assert (answers["capital/France"], answers["capital/Japan"], answers["capital/Kenya"]) == (
        "Paris",
        "Tokyo",
        "Nairobi",
    )
    with pytest.raises(ValueError, match=r"no relation 'anthem'; there are \['capital'"):
        country_facts("anthem")


# task files


def written(tmp_path, *lines):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def row(question, answer):
    return json.dumps({"question": question, "answer": answer}, ensure_ascii=False)


def test_a_task_is_read_from_json_lines(tmp_path):
    path = written(tmp_path, row("One?", "1"), "", row("Two?", 2), row("Three?", "So 2 + 1 = 3.\n#### 3"), "")
    task = load_task(path, direct="Only the number.")
    assert [(item.id, item.question, item.answer) for item in task.items] == [
        ("1", "One?", "1"),
        ("3", "Two?", "2"),
        ("4", "Three?", "3"),
    ]
    assert (task.name, task.direct, task.cot) == ("tasks", "Only the number.", COT)


def test_a_line_ends_at_a_newline_alone(tmp_path):
    odd = "Was ist \u2028das\x85 für \x0b1?"
    assert [item.question for item in load_task(written(tmp_path, row(odd, 1), row("b?", 2))).items] == [odd, "b?"]
    assert len(load_task(written(tmp_path, (row("a?", 1) + "\r\n" + row("b?", 2)).encode()))) == 2


def test_a_byte_order_mark_does_no_harm(tmp_path):
    assert len(load_task(written(tmp_path, b"\xef\xbb\xbf" + row("a?", 1).encode(), row("b?", 2)))) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not JSON"),
        (b'{"question": "caf\xe9?", "answer": 1}', "line 2 is not JSON"),
        ("[1, 2]", "line 2 lacks a question or an answer"),
        ('"question answer"', "line 2 lacks a question or an answer"),
        ('{"question": "Why?"}', "line 2 lacks a question or an answer"),
        ('{"question": null, "answer": 1}', "line 2 has a question or an answer that is not text"),
        ('{"question": "Why?", "answer": null}', "line 2 has a question or an answer that is not text"),
        ('{"question": "Why?", "answer": ["a", "b"]}', "line 2 has a question or an answer that is not text"),
        ('{"question": " ", "answer": 1}', "line 2 has an empty question or answer"),
        ('{"question": "Why?", "answer": ""}', "line 2 has an empty question or answer"),
        ('{"question": "Why?", "answer": "so ####"}', "line 2 has an empty question or answer"),
        ('{"question": "First?", "answer": 2}', "line 2 asks the question of line 1 again"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    with pytest.raises(ValueError, match=says):
        load_task(written(tmp_path, row("First?", 1), line))


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no task file at"):
        load_task(tmp_path)
    with pytest.raises(ValueError, match="is empty"):
        load_task(written(tmp_path, "", "  "))


@pytest.mark.skipif(not GSM8K.is_file(), reason=f"GSM8K is not at {GSM8K}")
def test_gsm8k_is_read_and_its_solutions_are_graded_right():
    task = load_task(GSM8K)
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf8").splitlines()]
    assert len(task) == len(rows) == 1319
    assert task.items[0].answer == "18"
    for item, gold in zip(task.items, rows, strict=True):
        assert grade(gold["answer"], item.answer) is Outcome.RIGHT
        assert grade(gold["answer"].rsplit("####", 1)[0], str(10**9)) is not Outcome.RIGHT
