"""What is kept: feature tables, runs, work units; nothing is ever there by half."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saereason import Add, Feature, FeatureTable, Run, WorkUnit, inline, work_unit
from saereason.executors import code_version, describe, result_path, side_by_side
from saereason.runs import git_revision, write_file, write_folder, write_json, write_text

UNIT = WorkUnit("layer", '{"a":1,"b":[2,3]}', "w0", "t0", ((0, "s0"), (3, "s3")), "float32", 2, "c0")


def table(n=6, **columns):
    score = np.array([0.5, np.nan, 2.0, -1.0, 2.0, 0.0])[:n]
    return FeatureTable({"layer": np.arange(n) // 3, "index": np.arange(n) % 3, "score": score, **columns})


# features


@given(st.integers(0, 999), st.integers(0, 10**6))
def test_a_feature_is_read_back_from_what_it_prints(layer, index):
    feature = Feature(layer, index)
    assert Feature.parse(str(feature)) == Feature.parse(f" {str(feature).lower()}\n") == feature


@pytest.mark.parametrize(
    "text", ["", "L3", "3/4", "L3/", "L/4", "L-1/4", "L3/4/5", "L3/x", "L3 / 4", "layer 3", "L1.5/2"]
)
def test_other_texts_are_no_features(text):
    with pytest.raises(ValueError, match=r"is not a feature; write it as layer and index, such as L19/3374"):
        Feature.parse(text)


def test_features_are_ordered_and_can_be_keys():
    features = [Feature(2, 0), Feature(0, 9), Feature(0, 10), Feature(2, 0)]
    assert sorted(set(features)) == [Feature(0, 9), Feature(0, 10), Feature(2, 0)]


# tables


def test_the_best_rows_come_first_ties_in_order_and_nan_last():
    assert list(table().top(3, "score")) == [Feature(0, 2), Feature(1, 1), Feature(0, 0)]
    assert np.isnan(table().top(9, "score")["score"]).tolist() == [False] * 5 + [True]
    assert len(table().top(0, "score")) == 0
    with pytest.raises(ValueError, match="k is -1"):
        table().top(-1, "score")


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, bool])
def test_columns_of_any_kind_rank(kind):
    ranked = table(rate=np.array([0, 1, 0, 1, 0, 1]).astype(kind)).top(3, "rate")
    assert ranked["rate"].astype(int).tolist() == [1, 1, 1]


@pytest.mark.parametrize("k", [1, 3, 40, 199, 200, 500])
def test_the_top_is_what_sorting_gives(k):
    rng = np.random.default_rng(k)
    score = np.round(rng.normal(size=200), 1)
    score[rng.random(200) < 0.3] = np.nan
    whole = table(200, score=score)
    expected = np.argsort(-score, kind="stable")[:k]
    assert list(whole.top(k, "score")) == list(whole.where(expected))
    assert list(whole.sort("score")) == list(whole.where(np.argsort(-score, kind="stable")))


def test_scores_are_joined_feature_by_feature():
    rows = np.array([5, 0, 3])
    other = FeatureTable({name: column[rows] for name, column in table().columns.items() if name != "score"})
    other = other.with_column("rank", np.array([2, 0, 1]))
    joined = table().join(other)
    assert list(joined) == list(table()) and joined["score"][2] == table()["score"][2]
    np.testing.assert_array_equal(joined["rank"], [0, np.nan, np.nan, 1, np.nan, 2])
    with pytest.raises(ValueError, match=r"both tables have \['score'\]"):
        table().join(table())
    with pytest.raises(ValueError, match="a feature twice"):
        table().join(other.where([0, 0]))


def test_duckdb_sees_every_table_of_a_run(model, tmp_path):
    run = Run.open(tmp_path / "it's a run [1] *?")
    table().save(run.folder / "found.parquet")
    table(3).save(run.folder / "training" / "log.parquet")
    units = [work_unit(model, "demo/arm", n=n) for n in range(2)]
    list(inline(run, units, lambda unit: [{"n": unit.argument("n")}]))
    (run.folder / ".half-written.parquet").write_text("no table")
    con = run.con()
    assert con.sql("SELECT layer, index FROM found ORDER BY score DESC NULLS LAST LIMIT 1").fetchall() == [(0, 2)]
    assert con.sql('SELECT count(*) FROM "training/log"').fetchall() == [(3,)]
    assert con.sql('SELECT n FROM "results/demo-arm" ORDER BY n').fetchall() == [(0,), (1,)]
    assert con.sql('SELECT count(DISTINCT filename) FROM "results/demo-arm"').fetchall() == [(2,)]
    assert len(con.sql("SHOW TABLES").fetchall()) == 3


def test_rows_are_selected_into_a_new_table():
    whole = table()
    assert list(whole.at(1)) == [Feature(1, 0), Feature(1, 1), Feature(1, 2)]
    assert list(whole.where(whole["score"] > 1)) == list(whole.where([2, 4])) == [Feature(0, 2), Feature(1, 1)]
    assert len(whole.at(7)) == 0 and len(whole) == 6


def test_one_row_says_all_that_is_known():
    named = table(name=np.array(["a", "b", "c", "d", "e", "f"], dtype=object))
    assert named.row(Feature(0, 2)) == {"layer": 0, "index": 2, "score": 2.0, "name": "c"}
    with pytest.raises(ValueError, match="L5/0 is in the table 0 times"):
        table().row(Feature(5, 0))
    with pytest.raises(ValueError, match="L0/0 is in the table 2 times"):
        table().where([0, 0]).row(Feature(0, 0))


def test_tables_that_are_none_are_refused():
    with pytest.raises(ValueError, match="layer and index must be there"):
        FeatureTable({"layer": np.arange(3)})
    with pytest.raises(ValueError, match="all of one length"):
        table().with_column("more", np.arange(5))
    with pytest.raises(ValueError, match=r"no column 'rank'; there are \['index', 'layer', 'score'\]"):
        table()["rank"]
    with pytest.raises(ValueError, match="no column 'rank'"):
        table().top(1, "rank")


def test_a_new_column_leaves_the_old_table_alone():
    old = table()
    new = old.with_column("rank", np.arange(6))
    assert "rank" in new.columns and "rank" not in old.columns


def test_a_table_comes_back_from_parquet_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    whole = table(single=rng.random(6, dtype=np.float32), active=np.arange(6) > 2)
    whole.save(tmp_path / "deep" / "table.parquet")
    loaded = FeatureTable.load(tmp_path / "deep" / "table.parquet")
    assert list(loaded.columns) == list(whole.columns)
    for name, column in whole.columns.items():
        assert loaded[name].dtype == column.dtype
        np.testing.assert_array_equal(loaded[name], column)
    assert list(whole.to_pandas().columns) == list(whole.columns)


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="layer and index must be there"):
        FeatureTable.load(tmp_path / "other.parquet")


# runs


def test_a_run_keeps_its_manifest(tmp_path):
    run = Run.open(tmp_path / "a" / "b")
    run.write_manifest(command=["saereason", "demo"], seed=3, größe="für")
    assert Run.open(str(tmp_path / "a" / "b")) == run
    said = run.manifest
    assert (said["command"], said["seed"], said["größe"]) == (["saereason", "demo"], 3, "für")
    assert said["versions"]["torch"] == torch.__version__ and said["git_revision"] == git_revision()
    assert [entry.name for entry in run.folder.iterdir()] == ["manifest.json"]


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; give a folder for the run"):
        Run.open(tmp_path / "file")


def test_a_manifest_takes_no_nan(tmp_path):
    run = Run.open(tmp_path)
    run.write_manifest(command=[], loss=1.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_manifest(command=[], loss=float("nan"))
    assert run.manifest["loss"] == 1.0 and len(list(tmp_path.iterdir())) == 1


# whole or not at all


def test_a_file_is_there_whole_and_readable_by_others(tmp_path):
    write_text(tmp_path / "x" / "a.txt", "grün\n")
    write_json(tmp_path / "x" / "a.json", {"b": "ü"})
    write_text(tmp_path / "x" / "a.txt", "blau\n")
    assert (tmp_path / "x" / "a.txt").read_bytes() == b"blau\n"
    assert json.loads((tmp_path / "x" / "a.json").read_text(encoding="utf8")) == {"b": "ü"}
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["a.json", "a.txt"]
    assert (tmp_path / "x" / "a.txt").stat().st_mode & 0o777 == 0o644


def half(write, path):
    with write(path) as partial:
        target = partial / "part" if write is write_folder else partial
        target.write_text("half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_an_exception_leaves_nothing_or_what_was_there(tmp_path, write):
    path = tmp_path / "result"
    with pytest.raises(KeyboardInterrupt):
        half(write, path)
    assert not list(tmp_path.iterdir())
    with write(path) as partial:
        (partial / "part" if write is write_folder else partial).write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        half(write, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]
    assert (path / "part" if write is write_folder else path).read_text() == "whole"


def test_a_folder_replaces_the_one_that_was_there(tmp_path):
    for name in ("old", "new"):
        with write_folder(tmp_path / "f") as partial:
            (partial / name).touch()
    assert [entry.name for entry in (tmp_path / "f").iterdir()] == ["new"]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o755


KILLED = """
import os, signal, sys
from pathlib import Path
from saereason.runs import Run, write_file, write_folder, write_text
folder = Path(sys.argv[1])
with write_file(folder / "file.parquet") as a, write_folder(folder / "folder") as b, write_file(folder / "kept") as c:
    a.write_bytes(b"half")
    (b / "part").write_bytes(b"half")
    c.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_nothing_under_a_final_name(tmp_path):
    (tmp_path / "kept").write_text("whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["kept"]
    assert (tmp_path / "kept").read_text() == "whole"


# work units


def test_a_units_id_is_the_same_in_every_process():
    code = f"from saereason.executors import WorkUnit, code_version; print(({UNIT!r}).id, code_version())"
    env = {**os.environ, "PYTHONHASHSEED": "99"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert out.split() == [UNIT.id, code_version.__wrapped__()]  # the cached one may be of before an edit


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sweep"},
        {"arguments": '{"a":1,"b":[2,4]}'},
        {"weights": "w1"},
        {"saes": ((0, "s0"),)},
        {"saes": ((0, "s0"), (2, "s3"))},
        {"dtype": "bfloat16"},
        {"threads": 1},
        {"code": "c1"},
    ],
)
def test_every_field_changes_the_id(change):
    assert dataclasses.replace(UNIT, **change).id != UNIT.id == dataclasses.replace(UNIT).id


def test_a_unit_knows_all_that_decides_its_result(model, topk_saes):
    unit = work_unit(model, "layer", saes=topk_saes, b=(1, 2), a="x")
    assert (unit.weights, unit.dtype, unit.threads) == (model.hash, "float32", torch.get_num_threads())
    assert unit.arguments == '{"a":"x","b":[1,2]}' and unit.argument("b") == [1, 2]
    assert [layer for layer, _ in unit.saes] == [0, 1, 2, 3]
    assert unit == work_unit(model, "layer", saes=topk_saes, a="x", b=[1, 2])
    assert len({unit.id, work_unit(model, "layer", saes={0: topk_saes[0]}, a="x", b=[1, 2]).id}) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")], {"a": float("nan")}])
def test_arguments_that_equal_nothing_are_refused(model, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        work_unit(model, "layer", value=value)


@pytest.mark.parametrize("value", [{1, 2}, object(), lambda: 1, np.ones(2)])
def test_arguments_without_a_canonical_form_are_refused(model, value):
    with pytest.raises(ValueError, match="cannot be told from others on disk; give a frozen dataclass"):
        work_unit(model, "layer", value=value)


def test_descriptions_tell_values_apart():
    ones = torch.ones(2, 3)
    nearly = ones.double()
    nearly[0, 0] += 1e-12
    values = [ones, ones.T, ones.double(), nearly, torch.ones(6), ones.bfloat16(), torch.tensor(1.0), ones[:1]]
    values += [torch.tensor([2**24]), torch.tensor([2**24 + 1])]
    values += [Add(Feature(1, 2), 3.0), Add(Feature(1, 2), 4.0), Add(Feature(1, 3), 3.0), Feature(1, 2), {"layer": 1}]
    values += ["", [], {}, None, 0, False, [[1], 2], [1, [2]]]
    said = {json.dumps(describe(value), sort_keys=True) for value in values}
    assert len(said) == len(values)
    assert describe(np.int64(1)) == 1 and describe(np.float32(0.5)) == 0.5
    assert describe(ones) == describe(torch.ones(3, 2).T) and describe(Path("a/b")) == "a/b" and describe((1,)) == [1]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=8))
@settings(max_examples=30, deadline=None)
def test_json_is_described_as_itself(value):
    assert describe(value) == value


def test_a_unit_that_is_done_is_not_computed_again(tmp_path):
    run, calls = Run.open(tmp_path), []
    units = [dataclasses.replace(UNIT, arguments=str(n)) for n in range(3)]

    def compute(unit):
        calls.append(unit)
        return [{"value": 0.1 * int(unit.arguments), "text": "ä"}, {"value": float("nan"), "text": ""}]

    first = [(unit, frame) for unit, frame in inline(run, units[:2], compute)]
    again = [(unit, frame) for unit, frame in inline(run, units, compute)]
    assert calls == units and [unit for unit, _ in again] == units
    for (_, a), (_, b) in zip(first, again, strict=False):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert [path.name for path in sorted((tmp_path / "results").iterdir())] == sorted(
        result_path(run, unit).name for unit in units
    )


def test_a_unit_that_fails_leaves_no_result_and_is_computed_the_next_time(tmp_path):
    run = Run.open(tmp_path)
    with pytest.raises(ZeroDivisionError):
        list(inline(run, [UNIT], lambda unit: [{"value": 1 / 0}]))
    assert not list(tmp_path.rglob("*"))
    ((_, frame),) = inline(run, [dataclasses.replace(UNIT, name="a/b")], lambda unit: [{"value": 2}])
    assert frame["value"].tolist() == [2] and len(list((tmp_path / "results").iterdir())) == 1


MARK: ContextVar[str] = ContextVar("mark", default="none")


def test_works_side_by_side_share_the_threads_and_see_what_is_in_force():
    both, threads = [Event(), Event()], torch.get_num_threads()
    torch.set_num_threads(4)

    def work(place):
        both[place].set()
        assert both[1 - place].wait(30), "the other has not begun"
        MARK.set(f"{MARK.get()} {place}")
        return place, torch.get_num_threads(), MARK.get()

    token = MARK.set("outer")
    try:
        assert side_by_side([lambda: work(0), lambda: work(1)]) == [(0, 2, "outer 0"), (1, 2, "outer 1")]
        assert (torch.get_num_threads(), MARK.get()) == (4, "outer")
    finally:
        MARK.reset(token)
        torch.set_num_threads(threads)


def test_the_first_error_of_works_side_by_side_stops_the_others(tmp_path):
    begun = Event()

    def goes_on():
        with write_folder(tmp_path / "half"):
            begun.set()
            while True:
                time.sleep(0.01)

    def fails():
        assert begun.wait(30)
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        side_by_side([goes_on, fails])
    assert not list(tmp_path.iterdir()), "what it had begun was cleared away"


def test_a_helper_begins_when_a_work_has_ended_and_is_stopped_when_all_have():
    helped, ended, order = Event(), Event(), []

    def short():
        assert not helped.is_set()
        return "short"

    def long():
        assert helped.wait(30), "nobody helps"
        return "long"

    def helper():
        order.append(torch.get_num_threads())
        helped.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    assert side_by_side([short, long], [helper, helper]) == ["short", "long"]
    assert ended.is_set() and order == [max(1, torch.get_num_threads() // 2)], "one, on its share of the threads"
    assert side_by_side([lambda: 1], [helper]) == [1] and len(order) == 1


def test_a_thread_that_cannot_be_started_stops_the_others(monkeypatch):
    start, begun = Thread.start, []

    def starts(thread):
        begun.append(thread)
        if len(begun) == 2:
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(Thread, "start", starts)
    with pytest.raises(KeyboardInterrupt):
        side_by_side([lambda: 1, lambda: 2, lambda: 3])
    assert not any(thread.is_alive() for thread in begun)


def test_the_error_of_a_helper_is_raised():
    def waits():
        while True:
            time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: None, waits], [lambda: 1 / 0])


def test_folders_that_are_written_at_once_stay_whole(tmp_path):
    """Each writer's folder takes the name in one piece; the last one stays."""

    def writes(name):
        for _ in range(40):
            with write_folder(tmp_path / "folder") as partial:
                (partial / "a").write_text(name)
                (partial / "b").write_text(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(writes, "wxyz"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "folder" / "b").read_text()


def test_ctrl_c_stops_works_side_by_side():
    code = (
        "import signal, torch\nfrom saereason.executors import side_by_side\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "def work():\n    print('at work\\n', end='', flush=True)\n"  # in one piece: the other prints too
        "    while True:\n        torch.randn(99, 99) @ torch.randn(99, 99)\n"
        "try:\n    side_by_side([work, work])\nexcept KeyboardInterrupt:\n    print('stopped')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        try:
            assert one.stdout.readline() == "at work\n"
            one.send_signal(signal.SIGINT)
            said, wrong = one.communicate(timeout=60)
        finally:
            one.kill()
    assert (said.splitlines()[-1], wrong, one.returncode) == ("stopped", "", 0)
