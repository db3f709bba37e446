"""The commands of the exercises. They change the code of this copy, and keep whatever they replace in .exercises.

    python -m exercises status              how far you are
    python -m exercises start 5             blanks the functions of exercise 5; docstring and `# Eq.` line stay
    python -m exercises check 5             grades it, as `python -m pytest --ex 5` does
    python -m exercises hint 5
    python -m exercises show 5              draws your result above the right one, if the exercise has a picture
    python -m exercises solve 5             brings the original back
    python -m exercises break 3             puts bug 3 somewhere into the code
    python -m exercises check b3 ddim.py 14     is it in this file and equation? And do the tests agree?
    python -m exercises hint b3             its symptom
    python -m exercises solve b3            takes it out again
    python -m exercises handout DIR         for a teacher: a copy of the project with all exercises blank and no solutions
"""

import argparse
import ast
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from exercises.bugs import BUGS, bug, names_the_equation, names_the_file
from exercises.catalog import EXERCISES, ROOT, exercise, place
from exercises.source import function_in, handout, is_broken, is_handout, is_open, mend, plant, read, solve, start, was_planted, was_started

COMMANDS = {"status": 0, "start": 1, "check": 1, "hint": 1, "show": 1, "solve": 1, "break": 1, "handout": 1}     # words that must follow
GRADING = tuple(f"tests/exercises/test_exercises_{part}.py" for part in ("1_to_4", "5_to_8", "9_to_12", "13_to_16"))


def pytest(*words, quiet=False):
    """Runs pytest on this copy. Returns: its exit code and, if quiet, what it printed."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *words], cwd=ROOT, capture_output=quiet,
                          text=True, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"pytest could not run the tests (exit code {done.returncode})" + (f": {(done.stdout or done.stderr)[-800:]}" if quiet else ""))
    return done.returncode, done.stdout


def check_syntax(files):
    """Checks that files parse. Raises: ValueError with the file and line of a syntax error."""
    for file in files:
        try:
            ast.parse(read(ROOT / file))
        except SyntaxError as error:
            raise ValueError(f"{file}, line {error.lineno}: {error.msg}") from None


def case_by_hand(task):
    """Finds the first test of an exercise, which has the case computed by hand. Returns: "file, line"."""
    tests = [(file, number) for file in GRADING for number, line in enumerate(read(ROOT / file).split("\n"), start=1)
             if line.startswith(f"def test_ex{task.number}_")]
    return "{}, line {}".format(*tests[0])


def grade(task):
    """Runs the tests of one exercise. Returns: exit code."""
    check_syntax(file for file, _ in map(place, task.functions))
    blank = [name for name in task.functions for file, inner in [place(name)] if "not written yet" in function_in(read(ROOT / file), inner)]
    if blank:
        print(f"exercise {task.number} is still blank: write the body of {' and '.join(blank)}")
        return 1
    code, _ = pytest(*GRADING, "--ex", str(task.number), "--tb=short", "-rN")
    if code:
        print(f"The case computed by hand is in {case_by_hand(task)}. For a hint: python -m exercises hint {task.number}")
    elif is_handout(ROOT):
        print(f"exercise {task.number} is right. For the others: python -m exercises status")
    elif is_open(ROOT, task):
        left = [other.number for other in EXERCISES if not was_started(ROOT, other)]
        print(f"exercise {task.number} is right. " + (f"The next: python -m exercises start {left[0]}" if left else "You have begun all of them."))
    else:
        print(f"This is the original. To begin: python -m exercises start {task.number}")
    return code


def examine(found, words):
    """Says whether the student has named a bug, and whether its test agrees. Returns: exit code, 0 once the bug is named or mended."""
    if not is_broken(ROOT, found):
        mended = was_planted(ROOT, found) and found.before in read(ROOT / found.file)
        print(f"bug {found.number} is not in the code" + (f" any more. You mended it. {found.story}" if mended
                                                          else f"; to put it there: python -m exercises break {found.number}"))
        return 0
    if len(words) < 2:
        raise ValueError(f"check b{found.number}: name a file and an equation (or a section), such as ddim.py 14")
    file, equation = names_the_file(found, words[0]), names_the_equation(found, " ".join(words[1:]))
    if not (file and equation):
        print("The file is right, the equation is not." if file else "Not there.")
        return 1
    code, _ = pytest(found.test, "--tb=no", quiet=True)
    print(f"Yes. {found.story}\n{found.test} {'fails, as it should' if code else 'PASSES, which it should not'}.\n"
          f"Mend the line and check again, or: python -m exercises solve b{found.number}")
    return 0


def status():
    """Prints a line for each exercise, and one for the bugs."""
    open_ones = [task for task in EXERCISES if is_open(ROOT, task)]
    failed = set()
    if open_ones:
        check_syntax({file for task in open_ones for file, _ in map(place, task.functions)})
        asked = [word for task in open_ones for word in ("--ex", str(task.number))]
        _, printed = pytest(*GRADING, *asked, "--tb=no", "-rfE", quiet=True)
        failed = {int(number) for number in re.findall(r"^(?:FAILED|ERROR) \S+::test_ex(\d+)_", printed, re.MULTILINE)}
    marks = {task.number: "·" if task not in open_ones else "✗" if task.number in failed else "✓" for task in EXERCISES}
    for task in EXERCISES:
        print(f" {marks[task.number]} {task.number:>2}  {task.title:<42} {task.source:<26} {task.minutes:>3} min  difficulty {'●' * task.difficulty:<5} "
              f"importance {'●' * task.importance}")
    print("\n" + " ".join(f"{task.number}{marks[task.number]}" for task in EXERCISES) + "     ✓ right   ✗ not yet   · not begun, or the original")
    inside = [f"b{found.number}" for found in BUGS if is_broken(ROOT, found)]
    print("bugs in the code now: " + (", ".join(inside) or "none"))


def main(argv=None):
    """Runs one command. Returns: exit code."""
    parser = argparse.ArgumentParser(prog="python -m exercises", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("words", nargs="*", help="number of an exercise (5), of a bug (b5), or a folder")
    given = parser.parse_args(argv)
    command, words = given.command, given.words
    if len(words) < COMMANDS[command]:
        raise ValueError(f"{command}: " + ("name a new folder" if command == "handout" else "name an exercise, such as 5, or a bug, such as b3"))
    if command == "status":
        status()
        return 0
    if command == "handout":
        handout(ROOT, Path(words[0]))
        print(f"wrote {words[0]}: {len(EXERCISES)} exercises, all blank. Students begin with `python -m exercises status` there.")
        return 0
    name = re.fullmatch(r"(b?)(\d+)", words[0].lower())
    if name is None:
        raise ValueError(f"{command} {words[0]}: name an exercise, such as 5, or a bug, such as b3")
    number = int(name[2])
    if name[1] or command == "break":
        found = bug(number)
        if command in ("break", "start"):
            plant(ROOT, found)
            print(f"Bug {number} is in the code. Name its file and equation: python -m exercises check b{number} FILE EQUATION")
        elif command == "check":
            return examine(found, words[1:])
        elif command == "hint":
            print(found.symptom)
        elif command == "solve":
            mend(ROOT, found)
            print(f"{found.file} is as it was. {found.story}")
        else:
            raise ValueError(f"{command} {words[0]}: shows exercises only; name one, such as 5")
        return 0
    task = exercise(number)
    if command == "start":
        places = " and ".join(f"{name} ({where})" for name, where in zip(task.functions, start(ROOT, task)))
        print(f"exercise {number}, {task.title}, {task.source}: write {places}\nThen: python -m exercises check {number}")
    elif command == "check":
        return grade(task)
    elif command == "hint":
        print(task.hint)
    elif command == "solve":
        print(f"exercise {number}: the original is back, and what you wrote is in {solve(ROOT, task).relative_to(ROOT)}")
    else:
        from exercises.show import show         # loads torch and the student's code
        print(f"wrote {show(number)}")
    return 0


def again(error):
    """Raises an error once more."""
    raise error


if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):       # a closed one is None; a redirected one on Windows cannot print ✓
        stream.reconfigure(errors="replace")
    try:
        try:
            code = main()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except Exception as found:
        from common import run          # prints errors in one line; imported only here, because loading PyTorch takes seconds
        if isinstance(found, OSError) and not found.filename:
            sys.stdout = None           # it cannot be written, and must not be tried again before run() is there to catch the error
        run(partial(again, found))
    sys.exit(code)
