"""Published benchmarks: small files of each format, the real files where they are, and what is refused."""

import json
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from saereason.tasks import COT, DIRECT, Outcome, grade, load_benchmark, load_pairs, load_task, split_task
from saereason.tasks.grading import contains, is_number, value
from saereason.tasks.published import BENCHMARKS, PAIRS, GradedText, TextPair
from saereason.tasks.published.worked import ANNOTATION, without_annotations

DATA = Path(__file__).parents[2] / "shared/data"
RIGHT = Outcome.RIGHT

LRE = {
    "name": "capital",
    "prompt_templates": ["The capital city of {} is"],
    "prompt_templates_zs": ["What is the capital of {}? It is"],
    "properties": {},
    "samples": [
        {"subject": "Brazil", "object": "Bras\\u00edlia"},
        {"subject": "Bolivia", "object": "Sucre"},
        {"subject": "Bolivia", "object": "La Paz"},
    ],
}
STORY = (
    "1 Mary went home.\n2 John went out.\n3 Where is Mary?\thome\t1\n4 John took a pen.\n5 How many has he?|one|2 4\n"
)
PROOF = {
    "id": "p1",
    "context": "Each cat is a pet. Pets are not wild. Tom is a cat.",
    "question": "Is the following statement true or false? Tom is wild.",
    "options": ["A) True", "B) False"],
    "answer": "B",
    "explanation": ["Tom is a cat.", "Each cat is a pet.", "Tom is a pet.", "Pets are not wild.", "Tom is not wild."],
}
ORDER = {
    "id": "l1",
    "context": "Three birds.",
    "question": "Which is true?",
    "options": ["A) The owl is first.", "B) The wren is first."],
    "answer": "B",
}
STRATEGY = {
    "qid": "q1",
    "question": "Can it fly?",
    "answer": False,
    "decomposition": ["What is it?", "Can #1 fly?"],
    "facts": ["It is a stone"],
}
GSM = {
    "question": "How many?",
    "answer": "He has 2*3=<<2*3=6>>6, of $<<1000+6=1006>>1,006.\nHalf is <<1/2=1/2>>1/2.\n#### 6",
}
SOCRATIC = {
    "question": "How many?",
    "answer": "How many has he? ** He has 2*3=<<2*3=6>>6.\nAnd left? ** He has 6.\n#### 6",
}
SOLVED = {"question": "How many?", "ground_truth": "A: 6"} | {
    writer: {"is_correct": writer.startswith("175b"), "solution": f"<<2*3=6>>6 by {writer}\nA: 6"}
    for writer in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
}


def log(prompt, exam="arc-challenge-test-100", labels="AB", question="Which one?"):
    return f"""### Model: gpt-4 | Prompt: {prompt} | Exam: {exam} | Problem 1 of 1 ###
Topic: Science
Question: {question}
Choices:
  {labels[0]}: this one
  {labels[1]}:  that one
Response 0:
Thought:
  {prompt} first.

Action: Answer("B")
Response 1:
Action: Answer("A")
Votes: B, A
Agent Answer: B
Correct Answer: {labels[1]}
Score: 1
Tokens: 340

### Results ###
Accuracy: 1
"""


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "gsm8k": {"test.jsonl": lines(GSM, GSM | {"question": "And?"})},
    "svamp": {
        "SVAMP.json": json.dumps(
            [
                {
                    "ID": "chal-1",
                    "Body": "A pack costs 9 dollars. If it is cut by 2",
                    "Question": "how much are 3?",
                    "Equation": "( ( 9.0 - 2.0 ) * 3.0 )",
                    "Answer": 21.0,
                },
                {
                    "ID": "chal-2",
                    "Body": "He has 3.",
                    "Question": "How many?",
                    "Equation": "( 1.0 + 1.0 )",
                    "Answer": "3",
                },
            ]
        )
    },
    "bbh": {
        "navigate.json": json.dumps(
            {"canary": "", "examples": [{"input": "Back?\nOptions:\n- Yes\n- No", "target": "No"}]}
        ),
        "dates.json": json.dumps({"examples": [{"input": "When?\nOptions:\n(A) now\n(B) then", "target": "(B)"}]}),
    },
    "strategyqa": {"dev.json": json.dumps([STRATEGY])},
    "prontoqa": {"dev.json": json.dumps([PROOF])},
    "logical_deduction": {"dev.json": json.dumps([ORDER])},
    "babi": {"qa1_x_test.txt": STORY, "qa15_x_test.txt": STORY, "qa1_x_train.txt": STORY, "LICENSE.txt": "CC\n"},
    "lre": {"factual__capital.json": json.dumps(LRE)},
    "known_1000": {
        "known_1000.json": json.dumps(
            [{"known_id": 7, "subject": "K2", "attribute": "Asia", "template": "{} is in", "prompt": "K2 is in"}]
        )
    },
    "pararel": {
        "trex_lms_vocab/P19.jsonl": lines({"sub_label": "Ann", "obj_label": "Paris", "uuid": "u1"}),
        "graphs_json/P19.jsonl": lines({"pattern": "[Y] bore [X]."}, {"pattern": "[X] is from [Y] ."}),
    },
    "mmlu": {
        "test/logic_test.csv": 'What, "then"?,this,that,both,none,B\n',
        "test/law_test.csv": '"Who?\nWhere?",a,b,c,d,D\n',
        "dev/law_dev.csv": "Not this?,a,b,c,d,A\n",
    },
    "nq_open": {"NQ-open.dev.jsonl": lines({"question": "when was it", "answer": ["14 May 1972", "1972"]})},
    "arc": {f"x_gpt-4_-_{p}_-_arc.txt": log(p, labels="12") for p in ("baseline", "concise")},
    "aqua": {"x_gpt-4_-_baseline_-_aqua.txt": log("baseline", "aqua-rat-100")},
}
"""The files of a small copy of each benchmark."""


@pytest.fixture
def copy(tmp_path):
    """Writes a small copy of a benchmark and answers its folder."""

    def written(name, files=None):
        folder = tmp_path / name
        for path, text in (files or FILES[name]).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf8")
        return folder

    return written


@pytest.fixture
def no_hub(monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("datasets.load_dataset", fetch)


def scored(item):
    """What stands in the spans of an item."""
    return [item.solution[start:end] for start, end in item.spans]


# small files


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.usefixtures("no_hub")
def test_a_small_copy_is_read_without_the_hub_and_its_golds_are_right(name, copy):
    task = load_benchmark(name, copy(name))
    assert (task.name, task.kind, task.cot) == (name, BENCHMARKS[name].kind, COT)
    for item in task.items:
        assert all(grade(answer, item.answers) is RIGHT for answer in item.answers)
        assert not item.solution or grade(item.solution, item.answers) is RIGHT
        assert all(scored(item))


def test_gsm8k_shows_no_annotations_and_spans_their_results(copy):
    item, other = load_benchmark("gsm8k", copy("gsm8k") / "test.jsonl").items
    assert item.solution == "He has 2*3=6, of $1,006.\nHalf is 1/2.\nThe answer is 6."
    assert (scored(item), item.answer, item.id, other.id) == (["6", "1,006", "1/2"], "6", "1", "2")


def test_an_annotation_whose_result_is_not_shown_has_no_span():
    text, spans = without_annotations("That is <<2+2=4>>four, <<3+3>>6 and <<4+4=8>> 8, no more.")
    assert text == "That is four, 6 and  8, no more." and [text[a:b] for a, b in spans] == ["8"]


def test_svamp_works_its_equation_out_bracket_by_bracket(copy):
    first, second = load_benchmark("svamp", copy("svamp")).items
    assert first.question == "A pack costs 9 dollars. If it is cut by 2, how much are 3?"
    assert (first.id, first.answer) == ("chal-1", "21")
    assert first.solution == "9 - 2 = 7\n7 * 3 = 21\nThe answer is 21." and scored(first) == ["7", "21"]
    assert (second.answer, second.solution) == ("3", "")  # its equation comes to another number


def test_multiple_choice_has_one_layout(copy):
    (law, logic) = load_benchmark("mmlu", copy("mmlu")).items
    assert law.question == "Who?\nWhere?\nOptions:\n(A) a\n(B) b\n(C) c\n(D) d"
    assert (law.id, law.answer, logic.id, logic.answer) == ("law/1", "D", "logic/1", "B")
    (order,) = load_benchmark("logical_deduction", copy("logical_deduction")).items
    assert order.question.endswith("Which is true?\nOptions:\n(A) The owl is first.\n(B) The wren is first.")
    (arc,) = load_benchmark("arc", copy("arc")).items  # numbered there
    assert (arc.question, arc.answer) == ("Which one?\nOptions:\n(A) this one\n(B) that one", "B")
    dates = load_benchmark("bbh", copy("bbh"), part="dates")
    assert (dates.items[0].question, dates.items[0].answer) == ("When?\nOptions:\n(A) now\n(B) then", "B")


def test_each_task_asks_for_its_kind_of_answer(copy):
    asked = {name: load_benchmark(name, copy(name)).direct for name in BENCHMARKS}
    assert asked["gsm8k"] == DIRECT and "letter" in asked["mmlu"] and "yes or no" in asked["strategyqa"]
    assert (
        "true or false" in asked["prontoqa"]
        and "yes or no" in load_benchmark("bbh", copy("bbh"), part="navigate").direct
    )
    assert "word" in asked["babi"] and asked["lre"] == ""


def test_proofs_span_what_follows_and_the_context_does_not_say(copy):
    (item,) = load_benchmark("prontoqa", copy("prontoqa")).items
    assert item.question.endswith("Tom is a cat.\nIs the following statement true or false? Tom is wild.")
    assert (item.id, item.answer, scored(item)) == ("p1", "False", ["a pet", "not wild"])
    assert item.solution.startswith("Tom is a cat.\nEach cat") and item.solution.endswith("\nThe answer is False.")


def test_strategyqa_and_babi_end_in_the_answer_that_is_scored(copy):
    (item,) = load_benchmark("strategyqa", copy("strategyqa")).items
    assert item.solution == "What is it?\nCan #1 fly?\nIt is a stone\nThe answer is no." and scored(item) == ["no"]
    mary, pens = load_benchmark("babi", copy("babi"), part=1).items
    assert mary.question == "Mary went home.\nJohn went out.\nWhere is Mary?"
    assert (mary.id, mary.solution, scored(mary)) == ("1/3", "Mary went home.\nThe answer is home.", ["home"])
    assert pens.question == "Mary went home.\nJohn went out.\nJohn took a pen.\nHow many has he?"
    assert grade("He has 1.", pens.answers) is RIGHT and grade("He has 2.", pens.answers) is Outcome.WRONG


def test_relations_are_sentences_to_go_on_from(copy, model):
    lre = load_benchmark("lre", copy("lre"), part="capital")
    brazil, bolivia = lre.items
    assert (brazil.question, brazil.answer) == ("What is the capital of Brazil? It is", "Brasília")
    assert (brazil.id, brazil.solution, scored(brazil)) == ("capital/1", " Brasília", ["Brasília"])
    assert bolivia.answers == ("Sucre", "La Paz")
    assert [prompt.text for prompt in lre.prompts(model, lre.direct)] == [brazil.question, bolivia.question]
    (ann,) = load_benchmark("pararel", copy("pararel")).items
    assert (ann.id, ann.question, ann.answer) == ("P19/u1", "Ann is from", "Paris")
    (k2,) = load_benchmark("known_1000", copy("known_1000")).items
    assert (k2.id, k2.question, k2.answer) == ("7", "K2 is in", "Asia")


def test_parts_are_read_by_name_and_together(copy):
    babi = copy("babi")
    assert [item.id for item in load_benchmark("babi", babi).items] == ["1/3", "1/5"]  # part 15 asks the same
    assert load_benchmark("babi", babi, part="15").name == "babi 15"
    assert len(load_benchmark("bbh", copy("bbh"))) == 2
    assert load_benchmark("mmlu", copy("mmlu") / "dev/law_dev.csv").items[0].id == "law_dev/1"


def test_a_zip_file_is_a_folder(copy, tmp_path):
    with zipfile.ZipFile(tmp_path / "mmlu.zip", "w") as archive:
        for path, text in FILES["mmlu"].items():
            archive.writestr(f"data/{path}", text)
    assert load_benchmark("mmlu", tmp_path / "mmlu.zip") == load_benchmark("mmlu", copy("mmlu"))


def test_a_question_that_is_asked_twice_is_one_item(copy):
    twice = {"a.json": json.dumps({"examples": [{"input": "Back?", "target": "No"}] * 2})}
    assert [item.id for item in load_benchmark("bbh", copy("twice", twice)).items] == ["a/1"]


def test_n_items_are_drawn_by_the_seed_in_the_order_of_the_file(copy):
    rows = [{"question": f"q {i}", "answer": [f"a {i}"]} for i in range(40)]
    path = copy("many", {"x.jsonl": lines(*rows)}) / "x.jsonl"

    def ids(**how):
        return [int(item.id) for item in load_benchmark("nq_open", path, **how).items]

    assert ids(n=10) == ids(n=10, seed=0) == sorted(ids(n=10)) != ids(n=10, seed=1)
    assert set(ids(n=10)) < set(ids(n=20)) and ids(n=40) == ids() and ids(n=10) != list(range(1, 11))
    for n in (0, 41):
        with pytest.raises(ValueError, match=f"{n} of nq_open were asked for and there are 40"):
            ids(n=n)


# refusals


@pytest.mark.parametrize(
    ("name", "other", "says"),
    [
        ("gsm8k", "nq_open", "looks like nq_open; gsm8k needs rows"),
        ("nq_open", "gsm8k", "looks like gsm8k; nq_open needs"),
        ("strategyqa", "prontoqa", "looks like prontoqa; strategyqa needs"),
        ("prontoqa", "logical_deduction", "looks like logical_deduction; prontoqa needs"),
        ("logical_deduction", "prontoqa", "looks like prontoqa; logical_deduction needs"),
        ("babi", "arc", "looks like concise_cot_logs; babi needs"),
        ("bbh", "lre", "looks like lre; bbh needs"),
        ("known_1000", "svamp", "looks like svamp; known_1000 needs"),
        ("aqua", "babi", "looks like babi; aqua needs|looks like babi; concise_cot_logs needs"),
        ("pararel", "gsm8k", "looks like gsm8k; pararel needs"),
    ],
)
def test_a_file_of_another_format_is_named(name, other, says, copy):
    with pytest.raises(ValueError, match=says):
        load_benchmark(name, copy(other) / next(iter(FILES[other])))


def listed(*rows):
    return json.dumps(rows)


SUM = {"ID": "1", "Body": "b", "Question": "q", "Answer": "1"}
BAD = [
    ("gsm8k", "x.jsonl", lines(GSM) + "{", "row 2 is not JSON"),
    ("gsm8k", "x.jsonl", lines(GSM, [1]), "row 2 is a list"),
    ("gsm8k", "x.jsonl", lines(GSM, {**GSM, "answer": "6"}), "row 2 has an answer that does not end in ####"),
    ("gsm8k", "x.jsonl", lines(GSM, {**GSM, "answer": "#### six"}), "row 2 has an answer that does not end in ####"),
    ("gsm8k", "x.jsonl", lines(GSM, {**GSM, "question": " "}), "row 2 has no text as 'question'"),
    ("gsm8k", "x.jsonl", "\n", "x.jsonl is empty"),
    ("gsm8k", "x.jsonl", lines({"a": 1}), r"has rows with \['a'\], which no format here has; gsm8k needs"),
    ("gsm8k", "x.parquet", "", "ends in .parquet; give a file that ends in one of"),
    ("gsm8k", "x.json", '{"data": []}', r"holds one object with \['data'\]"),
    ("gsm8k", "x.json", "3", "holds a int; give a list of objects"),
    ("gsm8k", "x.json", lines(GSM, GSM), "is not JSON .*name a file of JSON lines .jsonl"),
    ("svamp", "x.json", listed({**SUM, "Answer": "x"}), "row 1 has an answer that is no number"),
    ("svamp", "x.json", listed({"Body": "b", "Question": "q", "Answer": "1"}), "row 1 has no 'ID'"),
    ("svamp", "x.json", listed(SUM, {**SUM, "Body": "c"}), "svamp has 1 twice"),
    ("bbh", "x.json", '{"examples": [{"input": "q\\n(A) a", "target": "(B)"}]}', r"row 1 has the answer \(B\), which"),
    ("bbh", "x.json", '{"examples": [{"input": "q", "target": "no"}, {"input": "q", "target": "yes"}]}',
     r"one question with two answers, as x/1 \('no'\) and x/2 \('yes'\)"),
    ("strategyqa", "x.json", listed(STRATEGY, {**STRATEGY, "answer": "no"}), "row 2 has an answer that is not true"),
    ("prontoqa", "x.json", listed({**PROOF, "answer": "C"}), "row 1 has the answer 'C'"),
    ("logical_deduction", "x.json", listed({**ORDER, "answer": "C"}), "row 1 has 2 choices and says that number 3 is"),
    ("mmlu", "x.csv", "q,a,b,c,d,A\nq,a\n", "row 2 has 2 cells"),
    ("mmlu", "x.csv", "q,a,b,c,d,A\nq,a,b,c,d,\n", "row 2 has no text as 'answer'"),
    ("mmlu", "x.csv", "q,a,b,c,d,E\n", "row 1 has 4 choices"),
    ("babi", "x.txt", "1 Mary went home.\nMary\n", "row 2 is no numbered line"),
    ("babi", "x.txt", "1 Mary went home.\n2 Where is Mary?\thome\t5\n", "row 2 is no question"),
    ("arc", "x.txt", log("baseline").replace("Correct Answer", "Answer"), "row 1 .*lacks a question"),
    ("arc", "x.txt", log("baseline", "aqua-rat-100"), "row 1 is of the exam aqua-rat-100, not arc"),
    ("lre", "x.json", json.dumps({**LRE, "prompt_templates_zs": ["x"]}), "row 1 has a template without a place"),
    ("nq_open", "x.jsonl", FILES["nq_open"]["NQ-open.dev.jsonl"] + lines({"question": "r", "answer": []}),
     "row 2 has no list of texts as 'answer'"),
    ("pararel", "x.jsonl", FILES["pararel"]["trex_lms_vocab/P19.jsonl"], "0 files of patterns go with"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "text", "says"), BAD)
def test_a_bad_row_or_file_is_named(name, path, text, says, copy):
    with pytest.raises(ValueError, match=says):
        load_benchmark(name, copy("bad", {path: text}) / path)


def test_what_is_not_there_is_said(copy, tmp_path):
    with pytest.raises(ValueError, match=r"no benchmark 'gsm9k'; there are \['aqua'"):
        load_benchmark("gsm9k")
    with pytest.raises(ValueError, match="no file or folder at"):
        load_benchmark("gsm8k", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"none of the 2 files in .* is named as those of gsm8k are"):
        load_benchmark("gsm8k", copy("bbh"))
    with pytest.raises(ValueError, match=r"no part 'sums' of bbh in .*; there are \['dates', 'navigate'\]\."):
        load_benchmark("bbh", copy("bbh"), part="sums")
    with pytest.raises(ValueError, match=r"no part 'dates' of bbh in .*navigate"):
        load_benchmark("bbh", copy("bbh") / "navigate.json", part="dates")
    with pytest.raises(ValueError, match="gsm8k has no parts, and part 'x' was asked for"):
        load_benchmark("gsm8k", copy("gsm8k"), part="x")
    with pytest.raises(ValueError, match="holds 1 twice"):
        load_benchmark("babi", copy("twice", {"en/qa1_x_test.txt": STORY, "hn/qa1_x_test.txt": STORY}))
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is not a zip file"):
        load_benchmark("mmlu", tmp_path / "x.zip")
    (tmp_path / "x.jsonl").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load_benchmark("gsm8k", tmp_path / "x.jsonl")


# the hub


HUB_ROWS = {
    "gsm8k": (None, [GSM, GSM | {"question": "And?"}]),
    "bbh": ("navigate", [{"input": "Back?\nOptions:\n- Yes\n- No", "target": "No"}]),
    "mmlu": ("law", [{"question": "Who?\nWhere?", "subject": "law", "choices": list("abcd"), "answer": 3}]),
    "prontoqa": (None, [PROOF]),
    "strategyqa": (None, [STRATEGY]),
    "svamp": (None, json.loads(FILES["svamp"]["SVAMP.json"])),
    "nq_open": (None, [{"question": "when was it", "answer": ["14 May 1972", "1972"]}]),
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_the_hub_gives_the_items_that_files_give(name, copy, monkeypatch):
    part, rows = HUB_ROWS[name]
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *what, **how: asked.append((what, how)) or rows)
    assert load_benchmark(name, part=part) == load_benchmark(name, copy(name), part=part)
    ((dataset, config), how) = asked[0]
    assert dataset in load_benchmark.__doc__ and config in (part, "main") and set(how) == {"split"}


def test_babi_on_the_hub_is_one_dataset_of_all_tasks(monkeypatch):
    rows = [{"passage": "Mary went home.\n", "question": "Where?", "answer": "home", "task": task} for task in (1, 2)]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    (item,) = load_benchmark("babi", part=2).items
    assert (item.id, item.question, item.answer) == ("2/2", "Mary went home.\nWhere?", "home")
    with pytest.raises(ValueError, match=r"no part '3' in Muennighoff/babi; there are \[1, 2\]"):
        load_benchmark("babi", part=3)


def test_offline_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"^openai/gsm8k could not be read from the hub \(.*\); go online, or give `source`"
    ) as said:
        load_benchmark("gsm8k")
    assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match="could not be read from the hub"):
        load_pairs("socratic_plain")


@pytest.mark.usefixtures("no_hub")
def test_what_the_hub_lacks_is_said():
    for name in ("lre", "known_1000", "pararel", "logical_deduction", "arc", "aqua"):
        with pytest.raises(ValueError, match=f"{name} is not on the hub in a format that is read here; give `source`"):
            load_benchmark(name)
    with pytest.raises(ValueError, match="bbh is read from the hub by parts"):
        load_benchmark("bbh")
    with pytest.raises(ValueError, match="model_solutions is not on the hub"):
        load_pairs("model_solutions")


# pairs


def test_logs_pair_the_first_responses_of_two_prompts(copy):
    prompts = ("chain_of_thought", "concise", "baseline")
    folder = copy("logs", {f"{prompt}.txt": log(prompt) for prompt in prompts} | {"LICENSE.txt": "BSD"})
    for name, off in (("verbose_concise", "concise"), ("verbose_direct", "baseline")):
        (pair,) = load_pairs(name, folder)
        assert pair.id == "arc-challenge-test-100/1"
        assert pair.question == "Which one?\nOptions:\n(A) this one\n(B) that one"
        assert pair.on.startswith("Thought:\n  chain_of_thought first.") and pair.on.endswith('Answer("B")')
        assert f"{off} first." in pair.off


def test_logs_that_do_not_pair_are_refused(copy):
    with pytest.raises(ValueError, match="holds no such logs; verbose_concise needs"):
        load_pairs("verbose_concise", copy("none", {"a.txt": log("baseline")}))
    with pytest.raises(ValueError, match=r"lacks one of the two for .*arc-challenge-test-100"):
        load_pairs("verbose_concise", copy("one", {"a.txt": log("concise")}))
    both = {"a.txt": log("concise"), "b.txt": log("chain_of_thought", question="What?")}
    with pytest.raises(ValueError, match="asks another question than"):
        load_pairs("verbose_concise", copy("other", both))
    twice = {"a.txt": log("concise"), "b.txt": log("chain_of_thought"), "c.txt": log("concise")}
    with pytest.raises(ValueError, match="is there twice"):
        load_pairs("verbose_concise", copy("twice", twice))


def test_socratic_working_is_plain_working_led_by_questions(copy):
    (pair,) = load_pairs("socratic_plain", copy("s", {"x.jsonl": lines(SOCRATIC)}) / "x.jsonl")
    assert pair.on == "How many has he? He has 2*3=6.\nAnd left? He has 6.\nThe answer is 6."
    assert pair == TextPair("1", "How many?", pair.on, "He has 2*3=6.\nHe has 6.\nThe answer is 6.")


def test_model_solutions_are_graded_texts(copy):
    texts = load_pairs("model_solutions", copy("m", {"x.jsonl": lines(SOLVED)}) / "x.jsonl")
    assert texts[0] == GradedText("1/6b_finetuning", "How many?", "6 by 6b_finetuning\nA: 6", False)
    assert [text.right for text in texts] == [False, False, True, True]


def test_bad_pairs_are_named(copy, tmp_path):
    with pytest.raises(ValueError, match=r"no pairs 'x'; there are \['model_solutions'"):
        load_pairs("x")
    with pytest.raises(ValueError, match="no file at"):
        load_pairs("model_solutions", tmp_path)
    plain = copy("gsm8k") / "test.jsonl"
    with pytest.raises(ValueError, match="row 1 has no lines of a sub-question"):
        load_pairs("socratic_plain", plain)
    with pytest.raises(ValueError, match="looks like gsm8k; model_solutions needs"):
        load_pairs("model_solutions", plain)
    bad = copy("bad", {"x.jsonl": lines(SOLVED, SOLVED | {"6b_finetuning": {"solution": "6"}})}) / "x.jsonl"
    with pytest.raises(ValueError, match="row 2 has no graded solution as '6b_finetuning'"):
        load_pairs("model_solutions", bad)


# the real files

REAL = {
    "gsm8k": ("reasoning/gsm8k", 1319),
    "bbh": ("reasoning/bbh", 2644),
    "strategyqa": ("reasoning/strategyqa", 229),
    "prontoqa": ("reasoning/logic_llm", 500),
    "logical_deduction": ("reasoning/logic_llm", 300),
    "babi": ("reasoning/babi", 4676),
    "lre": ("knowledge/lre_relations", 10997),
    "known_1000": ("knowledge/known_1000", 1208),
    "pararel": ("knowledge/pararel", 5861),
    "mmlu": ("knowledge/mmlu/mmlu.zip", 13937),
    "nq_open": ("knowledge/nq_open", 3610),
    "arc": ("paired_cot/concise_cot_logs", 100),
    "aqua": ("paired_cot/concise_cot_logs", 100),
}
"""Where the real files are, and how many different questions they ask."""

MOST_GRADED = 1500


def real(path):
    if not (DATA / path).exists():
        pytest.skip(f"{path} is not at {DATA}")
    return DATA / path


@pytest.mark.parametrize("name", REAL)
def test_real_golds_are_right_and_other_answers_wrong(name):
    path, n = REAL[name]
    task = load_benchmark(name, real(path))
    assert len(task) == n == len({item.id for item in task.items}) == len({item.question for item in task.items})
    items = load_benchmark(name, real(path), n=min(n, MOST_GRADED)).items
    tried = 0
    for item, other in zip(items, (*items[1:], items[0]), strict=True):
        texts = [text for answer in item.answers for text in (answer, f"The answer is {answer}.")]
        assert all(grade(text, item.answers) is RIGHT for text in texts), (item.id, item.answers)
        assert not item.solution or grade(item.solution, item.answers) is RIGHT, item.id
        assert all(a[1] <= b[0] for a, b in pairwise(item.spans)) and all(scored(item))
        if any(contains(other.answer, answer) or contains(answer, other.answer) for answer in item.answers):
            continue
        tried += 1
        assert grade(f"The answer is {other.answer}.", item.answers) is not RIGHT, (item.id, other.answer)
        if is_number(other.answer) or not any(map(is_number, item.answers)):  # else the last number counts
            assert grade(f"{item.answer}? The answer is {other.answer}.", item.answers) is not RIGHT, item.id
    assert tried > len(items) / 5


def test_real_gsm8k_spans_every_annotated_result():
    path = real("reasoning/gsm8k") / "test.jsonl"
    task = load_benchmark("gsm8k", path)
    same = load_task(path).items
    assert [(i.id, i.question, i.answer) for i in same] == [(i.id, i.question, i.answer) for i in task.items]
    for item, line in zip(task.items, path.read_text(encoding="utf8").splitlines(), strict=True):
        results = [note.rpartition("=")[2] for note in ANNOTATION.findall(json.loads(line)["answer"])]
        assert "<<" not in item.solution and len(results) == len(item.spans)
        for shown, result in zip(scored(item), results, strict=True):
            assert shown == result or value(shown) == value(result)
    search, report = split_task(task, 100)
    assert len(search) == 100 and not {i.question for i in search.items} & {i.question for i in report.items}


@pytest.mark.parametrize("part", ["boolean_expressions", "multistep_arithmetic_two"])
def test_real_bbh_answers_are_what_python_makes_of_the_questions(part):
    task = load_benchmark("bbh", real("reasoning/bbh"), part=part)
    for item in task.items:
        assert str(eval(item.question.removesuffix("is").removesuffix("=").strip())) == item.answer


def test_real_proofs_span_the_five_inferences_the_last_of_which_decides():
    for item in load_benchmark("prontoqa", real("reasoning/logic_llm")).items:
        claim = item.question.rpartition("? ")[2].rstrip(".").partition(" is ")[2]
        assert len(item.spans) == 5 and item.answer == str(scored(item)[-1] == claim)


@pytest.mark.parametrize("name", PAIRS)
def test_real_pairs(name):
    logs, gsm8k = "paired_cot/concise_cot_logs", "paired_cot/gsm8k"
    source = {
        "socratic_plain": f"{gsm8k}/test_socratic.jsonl",
        "model_solutions": f"{gsm8k}/example_model_solutions.jsonl",
    }
    texts = load_pairs(name, real(source.get(name, logs)))
    assert (
        len({text.id for text in texts})
        == len(texts)
        == {"socratic_plain": 1319, "model_solutions": 5276}.get(name, 200)
    )
    assert len(load_pairs(name, real(source.get(name, logs)), n=50)) == 50
    if name != "model_solutions":
        longer = Counter(len(pair.on) > len(pair.off) for pair in texts)
        assert longer[True] / len(texts) > 0.75


def test_real_socratic_pairs_hold_the_plain_gold_working():
    plain = {item.question: item.solution for item in load_benchmark("gsm8k", real("reasoning/gsm8k")).items}
    pairs = load_pairs("socratic_plain", real("paired_cot/gsm8k/test_socratic.jsonl"))
    assert all(plain[pair.question] == pair.off for pair in pairs)


def test_real_model_solutions_are_graded_here_as_their_authors_graded_them():
    answers = {item.question: item.answer for item in load_benchmark("gsm8k", real("reasoning/gsm8k")).items}
    texts = load_pairs("model_solutions", real("paired_cot/gsm8k/example_model_solutions.jsonl"))
    assert (
        sum((grade(text.text, answers[text.question]) is RIGHT) == text.right for text in texts) == len(texts) == 5276
    )
