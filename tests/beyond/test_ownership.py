"""ownership.py: what is in a file tells whether an earlier run made it. What the record says is tested in test_plan.py."""

import numpy as np
import pytest

from beyond.ownership import check_replaceable
from brackets.files import write_image
from brackets.marks import RESULT

PICTURE = np.full((4, 4, 3), 7, np.uint8)


def test_files_of_an_earlier_run_may_be_replaced_and_so_may_missing_ones(tmp_path):
    write_image(tmp_path / "a.png", PICTURE, RESULT)
    write_image(tmp_path / "a.hdr", PICTURE / np.float32(255))
    (tmp_path / "log.csv").write_text("step,L_r\n")
    check_replaceable(tmp_path / "a.png", tmp_path / "a.hdr", tmp_path / "none.png", tmp_path / "none.hdr")
    check_replaceable(tmp_path / "log.csv", tmp_path / "none.csv", begins="step,")


@pytest.mark.parametrize("name", ["a.png", "a.hdr", "log.csv"])
def test_files_of_somebody_may_not(name, tmp_path):
    write_image(tmp_path / "a.png", PICTURE)                    # without the mark
    write_image(tmp_path / "a.hdr", PICTURE / np.float32(255))
    (tmp_path / "log.csv").write_text("time,what\n")
    with pytest.raises(ValueError, match=f"{name}: would be replaced, but no earlier run made it; choose another --out, or move it away$"):
        check_replaceable(tmp_path / name, begins="step,")
