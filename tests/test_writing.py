"""Every file that the project makes is written whole or not at all: common.write_atomically, and who must use it."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common import write_atomically
from scripts import ROOT

# Code that opens files in its own way, and why that loses nothing.
OTHERWISE = {("common.py", "write_atomically"),         # the one writer
             ("common.py", "run"),                      # opens the null device
             ("beyond/log.py", "add"),                  # appends a row; a row that was cut off does not count
             ("examples/ablations.py", "train"),        # the output of a command, as it comes
             ("beyond/gainmap.py", "_jpeg"), ("beyond/checkpoints.py", "save_checkpoint"), ("synthetic/camera.py", "jpeg")}       # in memory
WRITERS = ("write_text", "write_bytes", "tofile", "imsave", "savetxt", "savez", "imwrite", "savefig", "save", "dump", "copyfile", "copy2", "move")
FILES = [path for pattern in ("*.py", *(f"{room}/**/*.py" for room in ("brackets", "synthetic", "evaluation", "beyond", "exercises", "examples", "weights")))
         for path in ROOT.glob(pattern)]


def own_writes(path):
    """Finds calls that write a file without write_atomically. Returns: list of (name of the function, line)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = lambda node: [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    called = lambda call: call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    atomic = {id(inner) for call in calls(tree) if called(call) == "write_atomically" for inner in calls(call)}
    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in calls(function):
            words = [word.value for word in [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("mode", None))]
                     if isinstance(word, ast.Constant)]
            opens = called(call) == "open" and any(str(word).strip("b+t") in ("w", "a", "x") for word in words)
            writes = (called(call) in WRITERS or ast.unparse(call.func) == "shutil.copy") and "<bytes>" not in words and ast.unparse(call.func) != "self.save"
            if (opens or writes) and id(call) not in atomic:
                found.append((function.name, call.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_other_code_writes_a_file(path):
    name = path.relative_to(ROOT).as_posix()
    assert [f"{name}:{line}" for function, line in own_writes(path) if (name, function) not in OTHERWISE] == []


def test_the_search_finds_what_writes_by_itself(tmp_path):
    lines = ["open(p, 'w')", "open(p, mode='ab')", "p.write_text('')", "np.save(p, a)", "figure.savefig(p)", "shutil.copy(a, p)"]
    fine = ["open(p, 'rb')", "open(p, newline='')", "write_atomically(p, lambda file: np.save(file, a))", "self.save('best.pt')", "a.copy()"]
    (tmp_path / "a.py").write_text("def f():\n    " + "\n    ".join([*lines, *fine]))
    assert own_writes(tmp_path / "a.py") == [("f", 2 + i) for i in range(len(lines))]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import torch
from matplotlib.figure import Figure
from beyond.checkpoints import save_checkpoint
from brackets.files import save_figure, write_image
from brackets.marks import RESULT
from common import write_atomically
folder, noise = Path(sys.argv[1]), np.random.default_rng(0).integers(0, 255, (100, 100, 3)).astype(np.uint8)
figure = Figure()
figure.add_subplot().imshow(noise)
writers = {name: lambda path, image=image: write_image(path, image) for name, image in (
    ("a.png", noise), ("a.jpg", noise), ("a.tif", noise), ("a.hdr", noise.astype(np.float32)))}
writers |= {"figure.png": lambda path: save_figure(path, figure, 100, RESULT),
            "array.npy": lambda path: write_atomically(path, lambda file: np.save(file, noise)),
            "checkpoint.pt": lambda path: save_checkpoint(path, {"model": {"w": torch.zeros(10_000)}})}
for name in writers:
    (folder / name).write_bytes(b"earlier")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for name, write in writers.items():
    try:
        write(folder / name)
        print(name, "was written")
    except OSError as error:
        print(name, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_full_disk_leaves_the_earlier_file_and_the_message_names_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 7, done.stderr
    for line in lines:
        name = line.split()[0]
        assert f"{tmp_path / name}: cannot be written (" in line and "make room" in line
        assert (tmp_path / name).read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="links need special rights there")
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "photograph.png").write_bytes(b"photograph")
    (tmp_path / "result.png").symlink_to(tmp_path / "photograph.png")
    write_atomically(tmp_path / "result.png", lambda file: file.write(b"result"))
    assert (tmp_path / "photograph.png").read_bytes() == b"photograph"
    assert (tmp_path / "result.png").read_bytes() == b"result" and not (tmp_path / "result.png").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
def test_a_new_file_has_the_permissions_that_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", lambda file: file.write(b"a"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_place_that_cannot_be_written_is_named_with_its_reason(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(OSError, match="cannot be written") as caught:
            write_atomically(path, lambda file: file.write(b"a"))
        assert str(caught.value).startswith(f"{path}: ")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_the_longest_name_that_a_folder_takes_is_written(tmp_path):
    path = Path(tmp_path) / ("ä" * 40 + "n" * 165 + ".png")        # ä is two bytes
    write_atomically(path, lambda file: file.write(b"a"))
    assert path.read_bytes() == b"a"
