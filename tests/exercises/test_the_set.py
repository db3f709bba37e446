"""Proves the exercises: a blank function fails its own exercise and no other, three wrong answers fail it, and a named test finds each bug."""

import shutil
import sys
from pathlib import Path

import pytest
import test_exercises_1_to_4
import test_exercises_5_to_8
import test_exercises_9_to_12
import test_exercises_13_to_16
from mistakes import MISTAKES
from yours import FILES, load_code_of, modules_of

from exercises.bugs import BUGS
from exercises.catalog import EXERCISES, ROOT, place
from exercises.source import function_in, read, start

GRADING = [(name, test) for module in (test_exercises_1_to_4, test_exercises_5_to_8, test_exercises_9_to_12, test_exercises_13_to_16)
           for name, test in vars(module).items() if name.startswith("test_ex")]


def copy_of_the_files(folder):
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / f"{name}.py", folder)
    return folder


def cases(test):
    """Returns the parameters of a test as pytest would pass them: a list of dicts."""
    made = [{}]
    for mark in (mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"):
        names, rows = mark.args
        made = [{**case, **dict(zip(names.split(", "), row))} for case in made for row in rows]
    return made


def fails(test, code):
    """Whether a grading test fails on some code."""
    fixtures = test.__wrapped__.__code__ if hasattr(test, "__wrapped__") else test.__code__
    for case in cases(test):
        with pytest.MonkeyPatch.context() as monkeypatch:
            try:
                test(code, **case, **({"monkeypatch": monkeypatch} if "monkeypatch" in fixtures.co_varnames[:fixtures.co_argcount] else {}))
            except (Exception, pytest.fail.Exception):
                return True
    return False


def failed_exercises(code, among=None):
    """Returns the numbers of the exercises that some code fails."""
    numbered = [(int(name.split("_")[1].removeprefix("ex")), test) for name, test in GRADING]
    return {number for number, test in numbered if number in (among or range(100)) and fails(test, code)}


def test_every_exercise_is_graded_and_the_shipped_code_passes(tmp_path):
    assert {int(name.split("_")[1].removeprefix("ex")) for name, _ in GRADING} == {task.number for task in EXERCISES} == set(MISTAKES)
    for task in EXERCISES:      # a student sees the failure of the first test first
        assert "by_hand" in next(name for name, _ in GRADING if name.startswith(f"test_ex{task.number}_"))
    assert [task.number for task in EXERCISES] == list(range(1, len(EXERCISES) + 1)) and len(EXERCISES) >= 12
    assert failed_exercises(load_code_of(copy_of_the_files(tmp_path / "copy"))) == set()


@pytest.mark.slow
@pytest.mark.parametrize("task", EXERCISES, ids=lambda task: str(task.number))
def test_a_blank_function_fails_its_exercise_and_no_other(task, tmp_path):
    folder = copy_of_the_files(tmp_path / "copy")
    start(folder, task)
    assert failed_exercises(load_code_of(folder)) == {task.number}


@pytest.mark.slow
@pytest.mark.parametrize("number", MISTAKES)
def test_each_of_three_wrong_answers_fails_its_exercise(number, tmp_path):
    functions = {place(name)[0]: [place(other)[1] for other in EXERCISES[number - 1].functions if place(other)[0] == place(name)[0]]
                 for name in EXERCISES[number - 1].functions}
    assert len(MISTAKES[number]) >= 3
    for k, (file, right, wrong) in enumerate(MISTAKES[number]):
        folder = copy_of_the_files(tmp_path / str(k))
        text = read(folder / file)
        inside = [name for name in functions[file] if right in function_in(text, name)]
        assert len(inside) == 1, f"{right!r} stands in {inside}, not in one function of exercise {number}"
        function = function_in(text, inside[0])
        (folder / file).write_text(text.replace(function, function.replace(right, wrong)), encoding="utf-8")
        assert failed_exercises(load_code_of(folder), among={number}) == {number}, wrong


# --- the bugs ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Copies the project without its pictures and weights."""
    folder, unneeded = tmp_path_factory.mktemp("bugs") / "project", ("weights", "examples", "docs", "runs", "results", "data")
    shutil.copytree(ROOT, folder, ignore=lambda at, names: {name for name in names if name.startswith(".") or (name in unneeded and Path(at) == ROOT)})
    return folder


def failing(folder, test):
    """Whether a test of another copy of the project fails there, in this process."""
    def mine(name, module):
        file = getattr(module, "__file__", None)
        path = Path(file or "/")
        return "site-packages" not in path.parts and (ROOT in path.parents or folder in path.parents)     # a virtual environment may lie in ROOT
    with modules_of(folder, mine), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)       # two patches of one file within a second would look the same
        code = pytest.main([test, "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", str(folder / "pyproject.toml")])
    assert code in (0, 1), f"{test}: pytest ended with {code}"
    return code == 1


def test_the_bugs_are_ten_in_several_files_and_each_line_stands_once():
    assert [found.number for found in BUGS] == list(range(1, 11)) and len({found.file for found in BUGS}) >= 4
    for found in BUGS:
        text = read(ROOT / found.file)
        assert text.count(found.before) == 1 and found.after not in text, found.number
        assert "\n" not in found.before + found.after


@pytest.mark.slow
@pytest.mark.parametrize("found", BUGS, ids=lambda found: str(found.number))
def test_a_named_test_finds_each_bug_and_passes_without_it(found, copy):
    text = read(copy / found.file)
    assert not failing(copy, found.test)
    (copy / found.file).write_text(text.replace(found.before, found.after), encoding="utf-8")
    try:
        assert failing(copy, found.test)
    finally:
        (copy / found.file).write_text(text, encoding="utf-8")
