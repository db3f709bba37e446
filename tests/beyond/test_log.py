"""log.py: what is in the file after a resume and after a kill."""

import pytest
from filelock import FileLock
from tqdm import tqdm

from beyond.log import Log


def written(path, steps):
    log = Log(path, ["L_r", "lr"])
    for step in steps:
        log.add({"step": step, "L_r": 1 / step, "lr": 1e-4}, tqdm(disable=True))
    return log


def test_a_resumed_log_goes_on_behind_its_first_step(tmp_path):
    written(tmp_path / "log.csv", [10, 20, 30])
    log = Log(tmp_path / "log.csv", ["L_r", "lr"], first_step=20)
    log.add({"step": 25, "L_r": 0.5, "lr": 1e-4}, tqdm(disable=True))
    assert [(row["step"], row["L_r"]) for row in log.rows()] == [("10", "0.1"), ("20", "0.05"), ("25", "0.5")]
    assert {entry.name for entry in tmp_path.iterdir()} - {".run.lock"} == {"log.csv"}


def test_a_row_that_a_kill_cut_off_does_not_count(tmp_path):
    log = written(tmp_path / "log.csv", [10, 20])
    whole = (tmp_path / "log.csv").read_bytes()
    last = whole.rindex(b"20,")
    for end in range(last + 1, len(whole)):
        (tmp_path / "log.csv").write_bytes(whole[:end])
        assert [row["step"] for row in log.rows()] == ["10"]
    resumed = Log(tmp_path / "log.csv", ["L_r", "lr"], first_step=20)
    resumed.add({"step": 30, "L_r": 0.5, "lr": 1e-4}, tqdm(disable=True))
    assert [row["step"] for row in resumed.rows()] == ["10", "30"]


def test_two_runs_at_once_cannot_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("beyond.log.PATIENCE", 0.1)
    written(tmp_path / "log.csv", [10])
    other = FileLock(tmp_path / ".run.lock")                    # as another process has it
    other.acquire(timeout=10)
    with pytest.raises(ValueError, match="another run writes there; wait for its end, or choose another --out$"):
        Log(tmp_path / "log.csv", ["L_r", "lr"], first_step=10)
    Log(tmp_path / "log.csv", ["L_r", "lr"], first_step=10, write=False)        # the other ranks of a run
    other.release()
    assert [row["step"] for row in Log(tmp_path / "log.csv", ["L_r", "lr"], first_step=10).rows()] == ["10"]


@pytest.mark.parametrize("name", ["log.csv", "log.png", "step_000005.png"])
def test_files_that_are_of_no_run_are_kept(name, tmp_path):
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(ValueError, match=f"{name}: would be replaced, but no earlier run made it"):
        Log(tmp_path / "log.csv", ["L_r", "lr"])
    assert (tmp_path / name).read_bytes() == b"somebody's"
