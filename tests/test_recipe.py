"""weights/recipe.py: the scripts understand every command of the recipe, and what was stopped is resumed."""

import dataclasses
import random
import runpy
import shlex
import subprocess
import sys
import time
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
    return [shlex.split(line.removeprefix("+ python ").removeprefix("-m ")) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("size", ["small", "paper"])
def test_the_commands_are_understood_and_hand_their_files_on(tmp_path, size):
    commands = dry_run("--hdr-dir", "DIR", "--out", tmp_path, "--size", size)
    parsed = [common.parse(CONFIGS[script], words) for script, *words in commands]
    rendered, bank, stage1, stage2, val, test, scores = parsed
    assert bank.rendered_dir == stage1.training.rendered_dir == val.rendered_dir == rendered.out
    assert stage1.training.root == stage2.training.root == bank.out and stage2.stage1 == f"{stage1.out}/last.pt"
    assert scores.root == val.export and scores.weights == (f"{stage2.out}/weights.pt",) and (val.ruler, test.ruler) == ("val", "test")
    assert stage1.beyond == dataclasses.replace(stage2.beyond, decibel=(0.03, 0.02)) and stage1.beyond.correct and not stage1.training.resume
    if size == "paper":
        assert stage1.dhrnet == train_stage1.Stage1Config().dhrnet and stage2.denoiser == train_stage2.Stage2Config().denoiser


def test_a_stage_that_was_begun_is_resumed(tmp_path):
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "last.pt").touch()
    commands = dry_run("--hdr-dir", "DIR", "--out", tmp_path)
    assert "--resume" in commands[2] and "--resume" not in commands[3]


def test_the_state_of_training_travels_in_small_files(tmp_path):
    """The file is as large as last.pt of stage 1 with the paper's network. Stage 2 has not begun, and other files in the folder stay."""
    recipe, state, rng = runpy.run_path(str(ROOT / "weights" / "recipe.py")), tmp_path / "state", random.Random(0)
    run = {"stage1/last.pt": rng.randbytes(62_000_000), "stage1/log.csv": b"step\n10\n"}
    for name, data in run.items():
        common.write_atomically(tmp_path / "here" / name, lambda file, data=data: file.write(data))
    common.write_atomically(state / "stage1.last.pt.bak", lambda file: file.write(b"mine"))
    recipe["take_apart"](tmp_path / "here", state)
    assert max(path.stat().st_size for path in state.rglob("*")) <= 15 * 2 ** 20 and len(list((state / "recipe_000000").iterdir())) == 5
    recipe["put_together"](state, tmp_path / "there")
    found = {path.relative_to(tmp_path / "there").as_posix(): path.read_bytes() for path in (tmp_path / "there").rglob("*.*")}
    assert found == run and (state / "stage1.last.pt.bak").read_bytes() == b"mine"
    common.write_atomically(tmp_path / "here/stage1/last.pt", lambda file: file.write(b"shorter"))
    recipe["take_apart"](tmp_path / "here", state)
    recipe["put_together"](state, tmp_path / "there")               # stage 1 has begun there
    assert (tmp_path / "there/stage1/last.pt").stat().st_size == 62_000_000
    assert sorted(path.name for path in state.rglob("*")) == ["recipe_000001", "stage1.last.pt.000", "stage1.last.pt.bak", "stage1.log.csv.000"]


def test_a_state_that_was_not_written_whole_does_not_replace_the_one_before(tmp_path, monkeypatch):
    recipe = runpy.run_path(str(ROOT / "weights" / "recipe.py"))
    last, state, written = tmp_path / "here" / "stage1" / "last.pt", tmp_path / "state", []

    def write(path, writer):
        if written:
            raise OSError("the disk is full")
        written.append(path)
        common.write_atomically(path, writer)

    common.write_atomically(last, lambda file: file.write(b"whole"))
    recipe["take_apart"](tmp_path / "here", state)
    last.write_bytes(bytes(20_000_000))                              # two pieces
    monkeypatch.setitem(recipe["take_apart"].__globals__, "write_atomically", write)
    with pytest.raises(OSError, match="full"):
        recipe["take_apart"](tmp_path / "here", state)
    monkeypatch.undo()
    recipe["put_together"](state, tmp_path / "there")
    assert (tmp_path / "there" / "stage1" / "last.pt").read_bytes() == b"whole"


def test_folders_are_those_of_the_place_where_it_is_started(tmp_path, monkeypatch, capfd):
    recipe = runpy.run_path(str(ROOT / "weights" / "recipe.py"))
    (tmp_path / "synthetic").mkdir()                                # is not taken for ours
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert recipe["finish"](["-m", "synthetic", "--count", "1", "--size", "64", "--export", "made"], None) and (tmp_path / "made").is_dir()
    with pytest.raises(ValueError, match="failed"):
        recipe["finish"](["evaluate.py", "--data", "folder", "--root", "images"], None)
    assert "--root images: neither a scene nor a folder of scenes" in capfd.readouterr().err


def test_the_weights_are_in_place_before_they_are_scored(tmp_path, monkeypatch):
    recipe, shipped, seen = runpy.run_path(str(ROOT / "weights" / "recipe.py")), tmp_path / "project" / "weights" / "lfdiff.pt", []
    common.write_atomically(tmp_path / "run" / "stage2" / "weights.pt", lambda file: file.write(b"new"))

    def finish(words, until):
        seen.append((words[0], shipped.exists()))
        return True

    for name, value in (("finish", finish), ("ROOT", tmp_path / "project")):
        monkeypatch.setitem(recipe["main"].__globals__, name, value)
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--hdr-dir", str(tmp_path), "--out", str(tmp_path / "run")])
    recipe["main"]()
    assert shipped.read_bytes() == b"new" and seen == [*[(word, False) for word in ("-m", "-m", "train_stage1.py", "train_stage2.py")],
                                                       *[(word, True) for word in ("-m", "-m", "evaluate.py")]]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_command_whose_time_is_over_is_asked_to_stop_and_waited_for(tmp_path, capfd):
    finish = runpy.run_path(str(ROOT / "weights" / "recipe.py"))["finish"]
    words = ["-c", f"import signal, time\nsignal.signal(15, lambda *_: (time.sleep(0.5), open({str(tmp_path / 'saved')!r}, 'w'), exit(143)))\ntime.sleep(60)"]
    assert not finish(words, time.monotonic() + 2) and (tmp_path / "saved").exists()
    assert finish(["-c", "print('done')"], None) and capfd.readouterr().out.endswith("done\n")
    with pytest.raises(ValueError, match="failed"):
        finish(["-c", "exit(2)"], None)
