"""The commands change a copy of the project and lose nothing of it. Each test works on its own copy."""

import ast
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from brackets import files, scenes
from exercises import __main__ as commands
from exercises import measure, show, source
from exercises.bugs import bug, names_the_equation, names_the_file
from exercises.catalog import EXERCISES, ROOT, exercise, place
from synthetic.dataset import SyntheticBrackets

FILES = sorted({place(name)[0] for task in EXERCISES for name in task.functions} | {"brackets/exposures.py"})


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Copies the files that the commands change, and makes the commands work on the copy."""
    for file in FILES:
        (tmp_path / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / "copy" / file)
    monkeypatch.setattr(commands, "ROOT", tmp_path / "copy")
    return tmp_path / "copy"


def bytes_of(folder):
    return {file: (folder / file).read_bytes() for file in FILES}


@pytest.mark.parametrize("task", EXERCISES, ids=lambda task: str(task.number))
def test_a_blank_function_keeps_signature_docstring_and_equations_and_solve_brings_all_back(task, copy):
    before = bytes_of(copy)
    commands.main(["start", str(task.number)])
    for name in task.functions:
        file, inner = place(name)
        whole, blank = (source.function_in(source.read(folder / file), inner) for folder in (ROOT, copy))
        node = ast.parse(blank.strip() if "." not in inner else "class A:\n" + blank).body[0]
        node = node if "." not in inner else node.body[0]
        equations = [line.strip() for line in whole.split("\n") if line.strip().startswith("# Eq.")]
        assert blank.split("\n")[0] == whole.split("\n")[0] and [line.strip() for line in blank.split("\n") if "# Eq." in line] == equations
        assert ast.get_docstring(node) or inner == "Schedule.__init__"
        assert f"exercise {task.number}: not written yet" in blank and blank.count("\n") <= whole.count("\n")
    assert not (copy / ".git").exists()                             # it works without git
    commands.main(["solve", str(task.number)])
    assert bytes_of(copy) == before


def test_nothing_in_the_shipped_code_marks_an_exercise():
    assert not any("exercise" in source.read(ROOT / file).lower() for file in FILES)


def test_what_the_student_wrote_is_kept_and_other_changes_of_the_file_stay(copy):
    commands.main(["start", "4"])
    text = source.read(copy / "dhrnet.py").replace('    raise NotImplementedError("exercise 4: not written yet")', "    return F, F  # mine")
    source.write(copy / "dhrnet.py", "# my note\n" + text)
    with pytest.raises(ValueError, match="already begun"):
        commands.main(["start", "4"])
    commands.main(["solve", "4"])
    assert source.read(copy / "dhrnet.py") == "# my note\n" + source.read(ROOT / "dhrnet.py")
    assert "return F, F  # mine" in source.read(copy / ".exercises" / "04" / "yours" / "dhrnet.split_frequencies.py")
    commands.main(["start", "4"])                                   # and again from the beginning
    assert "not written yet" in source.read(copy / "dhrnet.py")


def test_a_syntax_error_is_named_and_solve_mends_it(copy):
    commands.main(["start", "5"])
    text = source.read(copy / "dhrnet.py").replace('raise NotImplementedError("exercise 5: not written yet")', "return (F")
    source.write(copy / "dhrnet.py", text)
    line = text.split("\n").index("        return (F") + 1
    with pytest.raises(ValueError, match=rf"dhrnet\.py, line {line}: "):
        commands.main(["check", "5"])
    with pytest.raises(ValueError, match="mend it first"):
        commands.main(["start", "4"])
    commands.main(["solve", "5"])
    assert source.read(copy / "dhrnet.py") == source.read(ROOT / "dhrnet.py")


def test_a_def_line_that_is_gone_is_asked_for(copy):
    commands.main(["start", "4"])
    source.write(copy / "dhrnet.py", source.read(copy / "dhrnet.py").replace("def split_frequencies(", "def split("))
    with pytest.raises(ValueError, match="split_frequencies: its `def` line is no longer in the file"):
        commands.main(["solve", "4"])


def test_line_ends_of_windows_stay(copy):
    (copy / "loss.py").write_bytes((copy / "loss.py").read_bytes().replace(b"\n", b"\r\n"))
    before = bytes_of(copy)
    commands.main(["start", "14"])
    assert (copy / "loss.py").read_bytes().count(b"\n") == (copy / "loss.py").read_bytes().count(b"\r\n")
    commands.main(["solve", "14"])
    assert bytes_of(copy) == before


def test_git_ignores_what_is_kept(copy):
    commands.main(["start", "4"])
    assert (copy / ".exercises" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("words", [["start", "99"], ["start", "x"], ["start"], ["solve", "4"], ["break", "11"], ["solve", "b3"], ["show", "b3"]])
def test_what_does_not_exist_is_refused_in_a_sentence(words, copy):
    with pytest.raises(ValueError) as error:
        commands.main(words)
    assert "\n" not in str(error.value)


# --- bugs -------------------------------------------------------------------------------------------------------------

def test_a_bug_goes_in_is_named_and_comes_out(copy, capsys, monkeypatch):
    before = bytes_of(copy)
    commands.main(["break", "10"])
    assert [file for file in FILES if bytes_of(copy)[file] != before[file]] == ["ddim.py"] and "ddim" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="already in the code"):
        commands.main(["break", "10"])
    assert commands.main(["check", "b10", "loss.py", "14"]) == 1 and "Not there" in capsys.readouterr().out
    assert commands.main(["check", "b10", "ddim", "2"]) == 1 and "The file is right" in capsys.readouterr().out
    monkeypatch.setattr(commands, "pytest", lambda test, *words, quiet: (1, ""))
    assert commands.main(["check", "b10", "ddim.py", "Eq.", "14"]) == 0 and "fails, as it should" in capsys.readouterr().out
    commands.main(["solve", "b10"])
    assert bytes_of(copy) == before


def test_a_bug_that_the_student_mended_is_known_as_mended(copy, capsys):
    commands.main(["break", "1"])
    source.write(copy / "ddim.py", source.read(copy / "ddim.py").replace(bug(1).after, bug(1).before))
    capsys.readouterr()
    assert commands.main(["check", "b1"]) == 0 and bug(1).story in (printed := capsys.readouterr().out) and "mended" in printed
    assert commands.main(["check", "b5"]) == 0 and bug(5).story not in (printed := capsys.readouterr().out) and "break 5" in printed


def test_a_bug_does_not_go_into_a_blank_function_and_an_edited_line_is_not_overwritten(copy):
    commands.main(["start", "12"])
    with pytest.raises(ValueError, match="not as it was shipped"):
        commands.main(["break", "1"])
    commands.main(["solve", "12"])
    commands.main(["break", "1"])
    source.write(copy / "ddim.py", source.read(copy / "ddim.py").replace(bug(1).after, "zip(times, times[:-1]):"))
    with pytest.raises(ValueError, match=r"\.exercises/b1/ddim\.py"):
        commands.main(["solve", "b1"])


def test_a_place_may_be_written_in_several_ways():
    assert all(names_the_file(bug(3), path) for path in ("exposures.py", "brackets/exposures.py", "exposures")) and not names_the_file(bug(3), "scenes.py")
    assert all(names_the_equation(bug(10), words) for words in ("14", "eq14", "Eq. 14", "4")) and not names_the_equation(bug(10), "2")
    assert names_the_equation(bug(3), "Sec. 4.1") and not names_the_equation(bug(3), "here")


# --- handout, pictures, and the commands as a student types them --------------------------------------------------------

def test_a_handout_is_blank_everywhere_and_holds_no_solution(copy, tmp_path, monkeypatch):
    before = bytes_of(copy)
    (copy / "data").mkdir()
    commands.main(["handout", str(tmp_path / "class")])
    assert bytes_of(copy) == before and not (tmp_path / "class" / "data").exists() and (tmp_path / "class" / "data.py").exists()
    for task in EXERCISES:
        for file, inner in map(place, task.functions):
            assert f"exercise {task.number}: not written yet" in source.function_in(source.read(tmp_path / "class" / file), inner)
    assert not (tmp_path / "class" / ".exercises").exists()
    monkeypatch.setattr(commands, "ROOT", tmp_path / "class")
    assert all(source.is_open(tmp_path / "class", task) for task in EXERCISES)
    with pytest.raises(ValueError, match="holds no solutions"):
        commands.main(["solve", "4"])
    with pytest.raises(ValueError, match="already blank in this copy"):
        commands.main(["start", "4"])
    with pytest.raises(ValueError, match="hunt this bug in the project itself"):
        commands.main(["break", "8"])


def test_a_handout_is_refused_inside_of_the_project_or_with_an_exercise_begun(copy, tmp_path):
    with pytest.raises(ValueError, match="outside this project"):
        commands.main(["handout", str(copy / "class")])
    commands.main(["start", "4"])
    with pytest.raises(ValueError, match="solve 4"):
        commands.main(["handout", str(tmp_path / "class")])


def test_a_picture_shows_the_same_twice_for_the_shipped_code(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(show, "draw", lambda path, shown: drawn.update({path.name: shown}))
    for number in show.PICTURES:
        show.show(number)
    for name, shown in drawn.items():
        for title, yours, wanted, *_ in shown:
            yours, wanted = np.asarray(yours), np.asarray(wanted)
            assert yours.shape == wanted.shape and np.abs(yours - wanted).max() < 2e-3, (name, title)
    with pytest.raises(ValueError, match="has no picture"):
        show.show(8)


@pytest.mark.parametrize("number", show.PICTURES)
def test_a_picture_needs_no_other_exercise(number, monkeypatch):
    def blank(*_, **__):
        raise NotImplementedError("another exercise")
    drawn, modules = [], [importlib.import_module(file.removesuffix(".py")) for file in FILES if "/" not in file]
    for file, inner in (place(name) for task in EXERCISES if task.number != number for name in task.functions):
        owner = importlib.import_module(file.removesuffix(".py"))
        for part in inner.split(".")[:-1]:
            owner = getattr(owner, part)
        function = getattr(owner, inner.split(".")[-1])
        for other in (owner, *modules):                             # other files have imported it by its name
            for name in [name for name, value in vars(other).items() if value is function]:
                monkeypatch.setattr(other, name, blank)
    monkeypatch.setattr(show, "draw", lambda path, shown: drawn.append(path.name))
    show.show(number)
    assert drawn == [f"exercise_{number:02d}.png"]


def test_a_picture_of_a_function_that_fails_names_the_error_and_a_wrong_result_is_drawn_with_its_distance(monkeypatch, tmp_path):
    monkeypatch.setattr("data.T", lambda x: x.no_such_method())
    with pytest.raises(ValueError, match="AttributeError: .*no_such_method.*python -m exercises check 1"):
        show.show(1)
    assert show.said(np.ones(3), np.ones(3)) == "as wanted" and show.said(np.ones(3), np.array([1, 1, 1.5])) == "differs by up to 0.5"
    assert show.said(np.ones((3, 2)), np.ones(3)) == "its shape is (3, 2), not (3,)" and "nan" in show.said(np.full(3, np.nan), np.ones(3))
    titles = []
    monkeypatch.setattr(show, "save_figure", lambda path, figure, dpi: titles.extend(axis.get_title() for axis in figure.axes))
    show.draw(tmp_path / "a.png", [("a", np.ones((3, 4, 6)), np.zeros((3, 4, 6)))])
    show.draw(tmp_path / "a.png", [("b", np.eye(2), np.eye(2), [2, 0], "t")])
    assert titles == ["a\nyours, differs by up to 1", "a\nwanted", "b\nyours, as wanted", "b\nwanted"]


def test_every_exercise_has_a_hint(capsys):
    for task in EXERCISES:
        commands.main(["hint", str(task.number)])
        assert capsys.readouterr().out.strip() == exercise(task.number).hint


def test_the_walk_goes_from_the_frames_to_the_page(monkeypatch, capsys):
    """On a corner of the example; the page itself is not overwritten."""
    scene, drawn = scenes.load_scene(ROOT / "examples" / "cafe"), []
    corner = {**scene, "ldr": scene["ldr"][..., 100:196, 250:378].contiguous(), "hdr": scene["hdr"][..., 100:196, 250:378].contiguous()}
    monkeypatch.setattr(scenes, "load_scene", lambda folder: corner)
    monkeypatch.setattr(files, "save_figure", lambda path, figure, dpi: drawn.append((path, len(figure.subfigs))))
    try:
        runpy.run_path(str(ROOT / "exercises" / "walk.py"), run_name="__main__")
    finally:
        torch.set_grad_enabled(True)
    assert drawn == [(ROOT / "docs" / "walk.png", 6)]
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["L_i", "X_i", "D", *(f"z_{t}" for t in range(180, -1, -20)), "z", "z_hat", "A_1", "A_3", "F_0", "F_low", "F_high", "A",
                       "F_hat", "F'", "F_1", "H_hat", "wrote"]


@pytest.mark.slow
def test_every_measurement_prints_a_row_for_each_case(monkeypatch, capsys):
    """On a corner of the example and on small brackets, by the words of the command line."""
    monkeypatch.setattr(measure, "SyntheticBrackets", lambda size, **words: SyntheticBrackets(tuple(min(side, 96) for side in size), **words))
    scene = scenes.load_scene(ROOT / "examples" / "cafe")
    rows = {"steps": 8, "prior": 6, "mu": 2, "upsample": 2, "leak": 4, "tiles": 4, "spread": 5, "stops": 18}
    assert set(rows) == set(measure.MEASURES)
    for what in rows:
        H, W = (272, 288) if what == "tiles" else (64, 96)          # a tile has 256 pixels or more
        corner = {name: scene[name][..., 100:100 + H, 200:200 + W].contiguous() for name in ("ldr", "hdr")}
        monkeypatch.setattr(measure, "load_scene", lambda folder, corner=corner: {**scene, **corner})
        monkeypatch.setattr("sys.argv", ["measure", what, "--scenes", "1"])
        measure.main()
        printed = [line for line in capsys.readouterr().out.splitlines() if "PSNR" not in line]
        assert len(printed) == rows[what], (what, printed)
        assert all(re.search(r"\d\.\d+$", line) for line in printed), printed
    monkeypatch.setattr("sys.argv", ["measure", "noise"])
    with pytest.raises(ValueError, match="not measured here"):
        measure.main()


@pytest.mark.slow
def test_check_and_status_say_what_is_right_and_what_is_not(tmp_path, monkeypatch, capfd):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "weights", "examples", "docs", "runs", "results"))
    monkeypatch.setattr(commands, "ROOT", copy)
    commands.main(["start", "4"])
    commands.main(["start", "14"])
    commands.main(["start", "9"])                                   # test_diffusion.py cannot even be imported now
    assert commands.main(["check", "4"]) == 1 and "still blank: write the body of dhrnet.split_frequencies" in capfd.readouterr().out
    text = source.read(copy / "dhrnet.py")
    answer = "F_low = nnf.avg_pool2d(F, k)\n    return F_low, upsample(F_low, k, mode) - F"
    text = text.replace('raise NotImplementedError("exercise 4: not written yet")', answer)
    source.write(copy / "dhrnet.py", text)
    assert commands.main(["check", "4"]) == 1
    assert "the first at [0, 0, 0, 1]\n    yours       0.00000     1.00000    -1.00000" in (printed := capfd.readouterr().out), printed
    file, line = re.search(r"The case computed by hand is in (\S+), line (\d+)\.", printed).groups()
    assert "def test_ex4_" in source.read(ROOT / file).split("\n")[int(line) - 1] and "hint 4" in printed
    source.write(copy / "dhrnet.py", text.replace("upsample(F_low, k, mode) - F", "F - upsample(F_low, k, mode)"))
    assert commands.main(["check", "4"]) == 0 and "exercise 4 is right. The next: python -m exercises start 1\n" in capfd.readouterr().out
    assert commands.pytest("--ex", "4", quiet=True)[0] == 0         # without a folder, as the header of __main__.py says
    commands.main(["status"])
    assert " 3· 4✓ 5· " in (printed := capfd.readouterr().out) and " 14✗ " in printed and " 9✗ " in printed


def test_a_handout_that_does_not_fit_on_the_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise source.shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'"), ("c", "d", "[Errno 28] No space left on device")])
    monkeypatch.setattr(source.shutil, "copytree", full)
    monkeypatch.setattr(source, "is_open", lambda root, task: False)
    with pytest.raises(OSError, match=r"h: 2 files could not be copied \(No space left on device\); delete it, and make room or choose another folder$"):
        source.handout(tmp_path, tmp_path.parent / f"{tmp_path.name}h")


def test_a_traceless_error_of_the_system_and_a_closed_pipe_end_the_exercises_as_all_scripts(tmp_path):
    (tmp_path / "file").touch()
    words = [sys.executable, "-m", "exercises", "handout", str(tmp_path / "file")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'file'}: a file is where a folder should be; name another file or folder\n")
    if sys.platform != "win32":
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([*words[:3], "hint", "5"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, "")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*words[:3], "hint", "5"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith("error: standard output: No space left")
