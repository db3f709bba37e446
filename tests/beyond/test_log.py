"""log.py: what is in the file after a resume and after a kill."""

import pytest
from tqdm import tqdm

from beyond.log import Log

COLUMNS = ["L_r", "lr", "patches_per_s"]


def written(path, steps):
    log = Log(path, COLUMNS)
    for step in steps:
        log.add({"step": step, "L_r": 1 / step, "lr": 1e-4}, tqdm(disable=True))
    return log


def test_a_resumed_log_goes_on_behind_its_first_step(tmp_path):
    written(tmp_path / "log.csv", [10, 20, 30])
    log = Log(tmp_path / "log.csv", COLUMNS, first_step=20)
    log.add({"step": 25, "L_r": 0.5, "lr": 1e-4}, tqdm(disable=True))
    assert [(row["step"], row["L_r"]) for row in log.rows()] == [("10", "0.1"), ("20", "0.05"), ("25", "0.5")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


def test_a_row_that_a_kill_cut_off_does_not_count(tmp_path):
    log = written(tmp_path / "log.csv", [10, 20])
    whole = (tmp_path / "log.csv").read_bytes()
    last = whole.rindex(b"20,")
    for end in range(last + 1, len(whole)):
        (tmp_path / "log.csv").write_bytes(whole[:end])
        assert [row["step"] for row in log.rows()] == ["10"]
    resumed = Log(tmp_path / "log.csv", COLUMNS, first_step=20)
    resumed.add({"step": 30, "L_r": 0.5, "lr": 1e-4}, tqdm(disable=True))
    assert [row["step"] for row in resumed.rows()] == ["10", "30"]


@pytest.mark.parametrize("mended", ["", "\ufeff"], ids=["as it was", "with a mark of Excel"])
def test_rows_that_somebody_has_made_unreadable_do_not_count(mended, tmp_path):
    written(tmp_path / "log.csv", [10, 20])
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(mended + text + "4.0,1,1,1\n,,,\n30,oops,1,1\n\n", encoding="utf-8")
    log = Log(tmp_path / "log.csv", COLUMNS, first_step=100)
    assert [row["step"] for row in log.rows()] == ["10", "20"]
    (tmp_path / "log.csv").write_text(text.replace("\n", ",mine\n"))          # one more column
    assert [list(row) for row in Log(tmp_path / "log.csv", COLUMNS, first_step=100).rows()] == 2 * [["step", *COLUMNS]]


@pytest.mark.parametrize("name", ["log.csv", "log.png", "step_000005.png"])
def test_files_that_are_of_no_run_are_kept(name, tmp_path):
    (tmp_path / name).write_bytes(b"step,loss")
    with pytest.raises(ValueError, match=f"{name}: is not from an earlier run and would be replaced"):
        Log(tmp_path / "log.csv", COLUMNS)
    assert (tmp_path / name).read_bytes() == b"step,loss"
