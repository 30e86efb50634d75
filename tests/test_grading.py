"""From texts to outcomes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saereason.tasks import Outcome, grade
from saereason.tasks.grading import contains, is_looping, is_number

RIGHT, WRONG, UNPARSABLE, TRUNCATED, LOOPING = Outcome
light = settings(max_examples=60, deadline=None)
prose = st.text(alphabet=st.characters(categories=["L", "Zs", "Po"]), max_size=40)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 72", "72"),
        ("The answer is 72.", "72"),
        ("the ANSWER IS: 72 apples", "72"),
        ("The answer is **72**.", "72"),
        ("Answer: $72", "72"),
        ("So she makes\n#### 72", "72"),
        (r"Thus \boxed{72}.", "72"),
        (r"Thus $\boxed{\$72}$ in all.", "72"),
        ("The final answer is $\\boxed{72}$, of 80.", "72"),
        ("12.", "12"),
        ("He has 12. ", "12"),
        ("1,234", "1234"),
        ("The answer is 1,234,567.50 dollars", "1234567.5"),
        ("The answer is 70,000", "70,000"),
        ("The answer is -3", "-3"),
        ("The answer is −3", "-3"),
        ("The answer is $-3.50", "-3.5"),
        ("+5", "5"),
        ("0.5", ".5"),
        ("It is .5", "0.5"),
        ("50%", "50"),
        ("3 + 4 = 7", "7"),
        ("8-3=5", "5"),
        ("It was in 2020-12", "12"),
        ("The answer is 5. Is that so? No, the answer is 6", "6"),
        ("The answer is 6. I had 3 and 4 of them.", "6"),
        ("Fig.5", "5"),
        ("The answer is 5, not 6", "5"),
        ("Paris", "Paris"),
        ("It is PARIS, of course.", "paris"),
        ("São Tomé is it", "Sao Tome"),
        ("Sao Tome is it", "São Tomé"),
        ("The capital is Washington, D.C.", "Washington D.C."),
        ("It is Port-au-Prince!", "Port au Prince"),
        ("The answer is 7 * 6 = 42", "42"),
        ("The answer is 12.", "12 apples"),
        ("That makes 75%.", "75%"),
        ("I like C++.", "C++"),
        ("A. Paris", "A"),
        ("(B) Rome", "B"),
        ("The correct answer is option B", "b"),
        ("Yes it is.", "yes"),
        ("It holds, so: true", "True"),
        ("Rome? No. The answer is Paris.", "Paris"),
        ("The answer: Washington, D.C.", "Washington D.C."),
        ("Paris is the answer.", "Paris"),
        ("So it is Paris. Answer:", "Paris"),
        ("The answer is *.", "*"),
        ("Use * here", "*"),
    ],
)
def test_right_answers_in_many_guises(text, answer):
    assert grade(text, answer) is RIGHT


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is a tricky question. The answer is B", "A"),
        ("A lot of them are B", "A"),
        ("Yes, there is no doubt.", "no"),
        ("The answer is C.", "C++"),
        ("16 eggs sell at $2 each, and she has 18 of them. The answer is 13.", "$18"),
        ("First 50, then 75. The answer is 75%.", "50%"),
        ("The answer is 3 + 2.", "5"),
        ("Paris? No. The answer is Rome.", "Paris"),
        ("Answer: Paris. Or rather, the answer is Rome", "Paris"),
        ("It is **bold**", "*"),
    ],
)
def test_a_mention_is_no_answer(text, answer):
    assert grade(text, answer) is WRONG


def test_any_of_several_answers_is_right():
    assert grade("In 1972.", ("14 December 1972", "1972")) is RIGHT
    assert grade("In December.", ("14 December 1972", "1972")) is WRONG
    assert grade("No idea.", ("1972", "72")) is UNPARSABLE
    assert grade("It was", ("Paris", "1972"), finished=False) is TRUNCATED
    with pytest.raises(ValueError, match="no answer to grade by"):
        grade("1972", ())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 720", "72"),
        ("The answer is 7.2", "72"),
        ("The answer is 3", "-3"),
        ("72 is what I thought, but it is 73", "72"),
        ("The answer is 9007199254740993", "9007199254740992"),
        ("9" * 400, "8" * 400),
        ("Parisian", "Paris"),
        ("New Delhi", "Delhi City"),
        ("?!", "-"),
    ],
)
def test_wrong_answers_that_are_nearly_right(text, answer):
    assert grade(text, answer) is WRONG


def test_all_five_outcomes():
    loop = [1, 2, 3] * 5
    assert grade("The answer is 4", "4") is RIGHT
    assert grade("The answer is 5", "4") is WRONG
    assert grade("I do not know.", "4") is UNPARSABLE
    assert grade("", "4") is grade(" \n", "Paris") is UNPARSABLE
    assert grade("First, 3 + 1", "4", finished=False) is TRUNCATED
    assert grade("a b c a b c", "4", finished=False, tokens=loop) is LOOPING
    assert grade("a b c a b c", "Paris", finished=False, tokens=loop) is LOOPING


def test_a_cut_off_text_is_graded_once_it_has_stated_its_answer():
    loop = [7] * 20
    assert grade("The answer is 4. And so", "4", finished=False, tokens=loop) is RIGHT
    assert grade("The answer is 5. And so", "4", finished=False) is WRONG
    assert grade("It is Paris, the city of", "Paris", finished=False) is RIGHT
    assert grade("4", "4", finished=False) is TRUNCATED


def test_a_choice_is_told_apart_from_no_choice_and_from_a_text_cut_off():
    assert grade("I do not know.", "B") is grade("Perhaps.", "yes") is UNPARSABLE
    assert grade("The answer is B. For", "A", finished=False) is grade("A. For", "B", finished=False) is WRONG
    assert grade("The answer is B. For", "B", finished=False) is RIGHT
    assert grade("But there is no", "no", finished=False) is TRUNCATED  # it is cut off there
    assert grade("<answer>True</answer>", "True") is RIGHT


def test_a_finished_text_is_never_looping_or_truncated():
    assert grade("no no no no", "4", tokens=[7] * 20) is UNPARSABLE


@given(st.integers(-(10**6), 10**6), prose)
@light
def test_a_stated_integer_is_read_back_with_and_without_commas(n, before):
    assert grade(f"{before} The answer is {n}.", str(n)) is RIGHT
    assert grade(f"{before} #### {n:,}", str(n), finished=False) is RIGHT
    assert grade(f"{before} The answer is {n}.", str(n + 1)) is WRONG


@given(st.decimals(-10_000, 10_000, places=2))
@light
def test_decimals_are_compared_by_value(number):
    assert grade(f"It costs ${number} now", f"{number:.4f}") in (RIGHT, WRONG if number < 0 else RIGHT)
    assert grade(f"The answer is {number}", f"{number:,.3f}") is RIGHT


@given(st.text(max_size=60), st.text(max_size=12), st.booleans(), st.lists(st.integers(0, 3), max_size=40))
@light
def test_grading_takes_any_text(text, answer, finished, tokens):
    outcome = grade(text, answer, finished=finished, tokens=tokens)
    assert outcome in Outcome
    assert outcome is not UNPARSABLE or finished
    assert outcome not in (TRUNCATED, LOOPING) or not finished
    assert grade("", answer) is not RIGHT


@given(st.lists(st.sampled_from(["Paris", "São", "Tomé", "New", "D.C.", "42"]), min_size=1, max_size=4), prose)
@light
def test_a_text_contains_its_words_whatever_stands_around_them(words, around):
    answer = " ".join(words)
    assert contains(f"{around} {answer.upper()}! {around}", answer)
    assert not contains(f"x{answer}x", answer)


@pytest.mark.parametrize("text", ["12", "-12", "+1", "1,234", "1.5", ".5", " 7 ", "12 apples", "$5", "5%"])
def test_these_are_numbers(text):
    assert is_number(text)


@pytest.mark.parametrize("text", ["", "-", ".", "twelve", "1.2.3", "5.", "1e5"])
def test_these_are_not_numbers(text):
    assert not is_number(text)


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 7))
@light
def test_a_cycle_at_the_end_is_a_loop_wherever_it_is_cut(before, cycle, part):
    turns = max(3, math.ceil(12 / len(cycle)))
    assert is_looping(before + cycle * turns + cycle[: part % len(cycle)])


def test_short_repeats_and_loops_that_ended_are_no_loops():
    assert not is_looping([])
    assert not is_looping([1] * 11)
    assert not is_looping([1, 2, 3, 4, 5, 6] * 2)
    assert not is_looping([*[1] * 30, 2])
    assert not is_looping(list(range(500)))
