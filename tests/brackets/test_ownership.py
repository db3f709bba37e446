"""ownership.py: a file's content tells whether an earlier run made it. The record is tested in test_plan.py."""

import subprocess
import sys

import numpy as np
import pytest

from brackets.ownership import check_replaceable, lock
from brackets.files import write_image
from brackets.marks import PICTURE, RESULT
from scripts import ROOT

IMAGE = np.full((4, 4, 3), 7, np.uint8)


def test_files_of_an_earlier_run_may_be_replaced_and_so_may_missing_ones(tmp_path):
    write_image(tmp_path / "a.png", IMAGE, PICTURE)
    write_image(tmp_path / "a.hdr", IMAGE / np.float32(255), PICTURE)
    (tmp_path / "log.csv").write_text("step,L_r,lr\n")
    check_replaceable(tmp_path / "a.png", tmp_path / "a.hdr", tmp_path / "none.png", tmp_path / "none.hdr")
    check_replaceable(tmp_path / "log.csv", tmp_path / "none.csv", first="step,.*lr")


@pytest.mark.parametrize("name", ["a.png", "a.hdr", "log.csv"])
def test_files_of_somebody_may_not(name, tmp_path):
    write_image(tmp_path / "a.png", IMAGE)                      # without the mark
    write_image(tmp_path / "a.hdr", IMAGE / np.float32(255))
    (tmp_path / "log.csv").write_text("step,what\n")
    with pytest.raises(ValueError, match=f"{name}: is not from an earlier run and would be replaced; move it away, or choose another --out$"):
        check_replaceable(tmp_path / name, first="step,.*lr")


@pytest.mark.parametrize("name", ["a.png", "a.hdr"])
def test_results_of_infer_are_not_replaced_by_others_not_even_copies_without_their_record(name, tmp_path):
    write_image(tmp_path / "a.png", IMAGE, RESULT)
    write_image(tmp_path / "a.hdr", IMAGE / np.float32(255), RESULT)
    with pytest.raises(ValueError, match=f"{name}: is not from an earlier run"):
        check_replaceable(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match=f"{name}: is not from an earlier run"):      # writing a picture checks again
        write_image(tmp_path / name, IMAGE if name == "a.png" else IMAGE / np.float32(255), PICTURE)
    assert (tmp_path / name).read_bytes() == before


def test_a_lock_keeps_other_processes_out_until_its_process_ends(tmp_path):
    code = f"from pathlib import Path; from brackets.ownership import lock; held = lock(Path({str(tmp_path / 'x.lock')!r})); print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="another run is writing there; wait until it ends, or choose another --out$"):
        lock(tmp_path / "x.lock")
    other.kill()
    other.communicate()
    held = lock(tmp_path / "x.lock", patience=10)
    assert lock(tmp_path / "x.lock") is held                    # the same process may take it again


def test_what_stands_in_the_place_of_a_lock_is_named(tmp_path):
    (tmp_path / "x.lock").mkdir()
    with pytest.raises(OSError, match="x.lock: cannot be locked .*; move it away, or choose another --out$"):
        lock(tmp_path / "x.lock")
