"""weights/recipe.py: every command of the recipe is one that the scripts understand, and is resumed where it was stopped."""

import subprocess
import sys
from pathlib import Path

import pytest

import common
import evaluate
import synthetic.__main__
import synthetic.bank
import synthetic.rendered.__main__
import train_stage1
import train_stage2

ROOT = Path(__file__).parent.parent
CONFIGS = {"synthetic.rendered": synthetic.rendered.__main__.Config, "synthetic.bank": synthetic.bank.BankConfig, "synthetic": synthetic.__main__.Config,
           "train_stage1.py": train_stage1.Stage1Config, "train_stage2.py": train_stage2.Stage2Config, "evaluate.py": evaluate.EvaluateConfig}


def dry_run(*words):
    done = subprocess.run([sys.executable, "weights/recipe.py", "--dry-run", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.removeprefix("+ python ").removeprefix("-m ").split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("size", ["small", "paper"])
def test_the_commands_are_understood_and_hand_their_files_on(tmp_path, size):
    commands = dry_run("--hdr-dir", "DIR", "--out", tmp_path, "--size", size)
    parsed = [common.parse(CONFIGS[script], words) for script, *words in commands]
    rendered, bank, stage1, stage2, val, test, scores = parsed
    assert bank.rendered_dir == stage1.training.rendered_dir == val.rendered_dir == rendered.out
    assert stage1.training.root == stage2.training.root == bank.out and stage2.stage1 == f"{stage1.out}/last.pt"
    assert scores.root == val.export and scores.weights == (f"{stage2.out}/weights.pt",) and (val.ruler, test.ruler) == ("val", "test")
    assert stage1.beyond == stage2.beyond and stage1.beyond.correct and not stage1.training.resume
    if size == "paper":
        assert stage1.model.dhrnet == train_stage1.Stage1Config().model.dhrnet and stage2.denoiser == train_stage2.Stage2Config().denoiser


def test_a_stage_that_was_begun_is_resumed(tmp_path):
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "last.pt").touch()
    commands = dry_run("--hdr-dir", "DIR", "--out", tmp_path)
    assert "--resume" in commands[2] and "--resume" not in commands[3]
