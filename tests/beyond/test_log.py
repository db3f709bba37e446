"""log.py: what is in the file after a resume and after a kill."""

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
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


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
