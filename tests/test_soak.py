"""tests/soak.py, each trial for a few seconds."""

import sys

import pytest

from scripts import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="soak.py needs the resource module")


def test_killed_runs_go_on_bit_for_bit(tmp_path):
    from soak import kills
    assert kills(tmp_path, 1).startswith("kills: ")         # kills() makes the assertions


def test_inferences_in_one_process(tmp_path):
    from soak import inferences
    assert inferences(tmp_path, 6).startswith("inferences: 6; ")


def test_training_that_sigterm_ends(tmp_path):
    from soak import training
    assert "steps of train_stage2" in training(tmp_path, 0.05)


@pytest.mark.filterwarnings("ignore::UserWarning")      # Pillow warns about damaged EXIF
def test_damaged_files_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "brackets"))
    from soak import readers
    assert readers(tmp_path, 0.05).startswith("readers: ")
