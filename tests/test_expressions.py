"""Answers that are fractions, LaTeX or other expressions."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from saereason.tasks import Outcome, grade
from saereason.tasks.expressions import is_expression, parsed, same_value

pytest.importorskip("math_verify", reason="math-verify is not installed")

RIGHT, WRONG, UNPARSABLE, TRUNCATED, LOOPING = Outcome


@pytest.mark.parametrize(
    "text", ["3/4", r"\frac{3}{4}", r"$\sqrt{2}$", "$x$", "x + 2", "x^2", "sqrt(2)", "y = 2x + 1", "2*x"]
)
def test_these_are_expressions(text):
    assert is_expression(text)


@pytest.mark.parametrize(
    "text",
    ["12", "-3", "$5", "$5 and $6", "12 apples", "A", "yes", "C++", "R&B", "9/11/2001", "2020-12-01", "2-3", "4 4 4"],
)
def test_these_are_not_expressions(text):
    assert not is_expression(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 3/4.", "3/4"),
        ("The answer is 6/8", "3/4"),
        ("Half of it is 1/2. The answer is 0.75", "3/4"),
        (r"So it is $\frac{3}{4}$.", "3/4"),
        (r"Thus \boxed{\frac{3}{4}}.", "3/4"),
        ("#### 3/4", r"\frac{3}{4}"),
        ("First 1/2, then 3/4", "3/4"),
        (r"The final answer is $\boxed{\dfrac{\sqrt{2}}{2}}$. I hope it is correct.", r"\frac{1}{\sqrt{2}}"),
        ("Answer: x + 2", "2 + x"),
        ("The answer is (x+1)^2.", "$x^2 + 2x + 1$"),
        ("The answer is 2*sqrt(3)", r"2\sqrt{3}"),
        ("The answer is 0.333333", "1/3"),
    ],
)
def test_equal_expressions_are_right(text, answer):
    assert grade(text, answer) is RIGHT


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 4/3.", "3/4"),
        ("3/4? No. The answer is 1/2", "3/4"),
        ("3/4, or rather 1/2", "3/4"),
        ("The answer is x + 3", "x + 2"),
        ("The answer is 0.33", "1/3"),
        ("The answer is $9^{9^{9^9}}$", r"\frac{1}{2}"),
        ("The answer is 10^100000000", "3/4"),
    ],
)
def test_other_expressions_are_wrong_and_towers_do_not_hang(text, answer):
    assert grade(text, answer) is WRONG


def test_the_five_outcomes_of_an_expression():
    assert grade("I do not know.", "3/4") is grade("", "3/4") is UNPARSABLE
    assert grade(r"The answer is $\binom{1000000}{500000}$", "3/4") is UNPARSABLE  # would take a minute to read
    assert grade("First, 1/2 of", "3/4", finished=False) is TRUNCATED
    assert grade("1/2 1/2 1/2", "3/4", finished=False, tokens=[7] * 20) is LOOPING
    assert grade(r"The answer is \frac{1}{", r"\frac{1}{2}", finished=False) is TRUNCATED
    assert grade("The answer is 1/2. And so", "3/4", finished=False) is WRONG
    assert grade("The answer is 3/4. And so", "3/4", finished=False) is RIGHT


def test_it_works_in_threads():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: grade(f"The answer is {2 * n}/{2 * n + 2}.", f"{n}/{n + 1}"), range(1, 30)))
    assert set(found) == {RIGHT}


@pytest.mark.parametrize(
    "text", ["((2^1000)^1000)^1000", "(a+b+c+d+e)^{20}", "2^{1000*1000}", r"\int_0^1 x dx", r"1000299\ln 999"]
)
def test_what_would_take_too_long_equals_nothing(text):
    assert not same_value(parsed("1/2"), parsed(f"${text}$"))
