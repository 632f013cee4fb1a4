"""Stored results are checked when read; runs that are left out are counted."""

import json

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.stored_results import (
    load_items,
    load_rows,
    pivot_metrics,
)
from geodistill.errors import InputError

CELLS = [(t, m, s) for t in ("movie", "product") for m in ("kd", "kd+gram") for s in range(3)]


def rows(**change):
    frame = pd.DataFrame(
        {"run_id": f"{t}-{m}-{s}", "task": t, "method": m, "seed": s, "metric": k, "value": 0.5}
        for t, m, s in CELLS
        for k in ("accuracy", "nll")
    )
    config = json.dumps({"n": 500})
    return frame.assign(dirty=False, config=config).assign(**change)


def items():
    frame = pd.DataFrame(
        {"run_id": f"{t}-{m}-{s}", "task": t, "method": m, "seed": s, "item": f"i{i}"}
        for t, m, s in CELLS
        for i in range(4)
    )
    return frame.assign(source=frame["item"], score=1.0)


def store(folder, rows_frame, items_frame=None):
    rows_frame.to_parquet(folder / "rows.parquet")
    if items_frame is not None:
        items_frame.to_parquet(folder / "items.parquet")
    return folder


def test_clean_rows_come_back_whole(tmp_path):
    store(tmp_path, rows(), items())
    table, scores = load_rows(tmp_path), load_items(tmp_path)
    assert (len(table.frame), len(table.run_ids), len(scores.frame)) == (24, 12, 48)
    assert set(table.left_out.values()) == set(scores.left_out.values()) == {0}


@pytest.mark.parametrize("name", ["rows", "items"])
def test_a_damaged_table_is_told_with_the_way_out(tmp_path, name):
    path = store(tmp_path, rows(), items()) / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:2000])
    told = rf"{name}.parquet can't be read \(ArrowInvalid: .*\); restore it, or delete it and make"
    with pytest.raises(InputError, match=told):
        load_items(tmp_path)


def test_runs_of_changed_code_are_left_out_and_counted(tmp_path):
    frame = rows()
    frame.loc[frame["run_id"].isin(["movie-kd-1", "movie-kd-2"]), "dirty"] = True
    store(tmp_path, frame, items().query("run_id != 'product-kd-0'"))
    table, scores = load_rows(tmp_path), load_items(tmp_path)
    assert table.left_out == {"from a changed checkout": 2}
    assert len(table.run_ids) == 10
    assert set(scores.run_ids) == set(table.run_ids) - {"product-kd-0"}
    assert scores.left_out["without items"] == 1


def test_wide_has_a_column_a_metric():
    table = pivot_metrics(rows())
    assert len(table) == 12
    assert {"accuracy", "nll", "seed"} <= set(table)


BAD = [
    (lambda: rows().drop(columns=["value", "dirty"]), "lacks the columns value, dirty"),
    (lambda: pd.concat([rows(), rows().head(1)]), r"1 rows twice.*movie-kd-0 accuracy"),
    (lambda: rows(value=np.nan), "24 rows have a value that is not finite"),
    (
        lambda: pd.concat([rows(), rows().head(2).assign(run_id="other")]),
        "two clean runs of movie/kd/0: .* and .*select runs by runs=",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_rows_are_refused(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        load_rows(store(tmp_path, make()))


def test_bad_items_are_refused(tmp_path):
    store(tmp_path, rows(), pd.concat([items(), items().head(1)]))
    with pytest.raises(InputError, match="twice, the first: run_id × item = movie-kd-0 i0"):
        load_items(tmp_path)
    store(tmp_path, rows(), items().assign(score=np.inf))
    with pytest.raises(InputError, match="score that is not finite"):
        load_items(tmp_path)


def test_no_rows_is_one_line_that_says_what_to_do(tmp_path):
    told = r"^no stored rows at .*/classification/rows.parquet; expected a folder of results with"
    with pytest.raises(InputError, match=told) as e:
        load_items(tmp_path / "classification")
    assert "\n" not in str(e.value)


def test_some_runs_can_be_selected(tmp_path):
    some = rows(n_train=500)
    more = rows(n_train=2000, config=json.dumps({"n": 2000}))
    more["run_id"] += "-2000"
    both = pd.concat([some, more], ignore_index=True)
    scores = pd.concat([items(), items().assign(run_id=items()["run_id"] + "-2000", score=0.0)])
    store(tmp_path, both, scores)
    selected = load_rows(tmp_path, runs=both["run_id"].unique()[:14])  # in both settings
    assert len(selected.run_ids) == 14
    assert selected.left_out["of another setting"] == 10
    assert load_items(tmp_path, runs=selected.run_ids).run_ids == selected.run_ids
    large = load_items(tmp_path, runs=more["run_id"].unique())
    assert large.frame["score"].unique().tolist() == [0.0]
    assert large.left_out["of another setting"] == 12


def test_runs_that_vary_in_a_setting_are_no_rivals(tmp_path):
    config = [json.dumps({"n": n}) for n in (1, 2)]
    two = pd.concat([rows(config=c) for c in config], ignore_index=True)
    two["run_id"] += two["config"]
    store(tmp_path, two)
    frame = load_rows(tmp_path, vary=["n"]).frame
    assert frame.groupby("n")["run_id"].nunique().to_dict() == {1: 12, 2: 12}
    assert len(pivot_metrics(frame)) == 24
    with pytest.raises(InputError, match="no column or setting 'm'"):
        load_rows(tmp_path, vary=["m"])
