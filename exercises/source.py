"""Changes the student's own copy: blanks a function, brings it back, plants a bug, makes a handout. Nothing that was there is lost.

Whatever a command replaces is kept in the folder .exercises, which git ignores:

    .exercises/05/original/dhrnet.MDTA.forward.py       the function as `start 5` found it
    .exercises/05/yours/dhrnet.MDTA.forward.py          the student's, as `solve 5` found it
    .exercises/b3/ddim.py                               the file as `break 3` found it
"""

import ast
import shutil

from exercises.catalog import EXERCISES, keeps, place

KEPT = ".exercises"
HANDOUT = "exercises/HANDOUT"       # this file marks a handout, and git sees it
LEFT_OUT = (".git", ".exercises", "__pycache__", ".pytest_cache", ".ruff_cache", ".venv*", ".ci")      # from a handout; at its top level, also:
LEFT_OUT_AT_TOP = ("data", "runs", "results")


def read(path):
    """Returns the text of a UTF-8 file."""
    return path.read_text(encoding="utf-8")


def write(path, text):
    """Writes a file whole or not at all, with the line endings that it had."""
    from common import write_atomically         # loads PyTorch, which takes seconds and which commands that only read do not need
    newline = "\r\n" if path.exists() and b"\r\n" in path.read_bytes() else "\n"
    write_atomically(path, lambda file: file.write(text.replace("\n", newline).encode()))


# --- functions in a text ----------------------------------------------------------------------------------------------

def _node(text, name):
    node = ast.parse(text)
    for part in name.split("."):
        node = next((child for child in node.body if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and child.name == part), None)
        if node is None:
            raise ValueError(f"{name}: its `def` line is no longer in the file; put it back as it was")
    return node


def _span_by_indentation(lines, name):
    *scope, function = name.split(".")
    indent, start = "    " * len(scope), 0
    try:
        if scope:
            start = next(i for i, line in enumerate(lines) if line.startswith(f"class {scope[0]}"))
        first = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{indent}def {function}("))
    except StopIteration:
        raise ValueError(f"{name}: its `def` line is no longer in the file; put it back as it was") from None
    end = next((i for i in range(first + 1, len(lines)) if lines[i].strip() and not lines[i].startswith(indent + " ")), len(lines))
    while not lines[end - 1].strip():
        end -= 1
    return first, end


def span(text, name):
    """Finds a function in a file's text, without its decorators. name: "function" or "Class.method".

    Returns: its first line and the line after its last, from 0. A file that does not parse is read by its indentation.
    Raises: ValueError if the file has no such function.
    """
    try:
        node = _node(text, name)
    except SyntaxError:
        return _span_by_indentation(text.split("\n"), name)
    return node.lineno - 1, node.end_lineno


def function_in(text, name):
    """Returns the text of a function, from `def` to its last line."""
    first, end = span(text, name)
    return "\n".join(text.split("\n")[first:end])


def replaced(text, name, function):
    """Returns the text with the named function replaced by `function`."""
    lines, (first, end) = text.split("\n"), span(text, name)
    return "\n".join(lines[:first] + function.split("\n") + lines[end:])


def blanked(text, name, number, keep=0):
    """Removes a function's body, except its docstring, its first `keep` statements and its `# Eq.` lines. Returns: the function's text."""
    node, lines = _node(text, name), text.split("\n")
    head = node.body[:keep + (ast.get_docstring(node) is not None)]
    start = head[-1].end_lineno if head else node.body[0].lineno - 1
    indent = " " * node.body[0].col_offset
    equations = [indent + line.strip() for line in lines[start:node.end_lineno] if line.strip().startswith("# Eq.")]
    return "\n".join(lines[node.lineno - 1:start] + equations + [f'{indent}raise NotImplementedError("exercise {number}: not written yet")'])


# --- exercises --------------------------------------------------------------------------------------------------------

def folder(root, number):
    """Returns the folder that keeps the original functions of an exercise, and the student's."""
    return root / KEPT / f"{number:02d}"


def hide(root):
    """Makes the folder for what is kept, with a .gitignore so that git ignores it."""
    if not (root / KEPT / ".gitignore").exists():
        write(root / KEPT / ".gitignore", "*\n")


def is_handout(root):
    """Whether this copy was made by `handout`, without the originals."""
    return (root / HANDOUT).exists()


def was_started(root, task):
    """Whether an exercise was ever begun in this copy, with `start`."""
    return folder(root, task.number).exists()


def is_open(root, task):
    """Whether an exercise is in progress: it was started, and its functions are not the originals."""
    kept = folder(root, task.number) / "original"
    if not kept.exists():
        return is_handout(root)
    return any(function_in(read(root / file), inner) != read(kept / f"{name}.py")
               for name in task.functions for file, inner in [place(name)])


def start(root, task):
    """Blanks the functions of an exercise. Returns: list of "file, line". Raises: ValueError if it is already begun or cannot be read."""
    if is_handout(root):
        raise ValueError(f"exercise {task.number} is already blank in this copy; write its body, then `python -m exercises check {task.number}`")
    if is_open(root, task):
        raise ValueError(f"exercise {task.number}: already begun, and your work on it would be lost; go on with it, or bring the original back with "
                         f"`python -m exercises solve {task.number}`")
    found = []
    for name in task.functions:
        file, inner = place(name)
        try:
            ast.parse(read(root / file))
        except SyntaxError as error:
            raise ValueError(f"{file}, line {error.lineno}: {error.msg}; mend it first") from None
        found.append((name, file, inner, function_in(read(root / file), inner)))
    hide(root)
    for name, file, inner, function in found:
        write(folder(root, task.number) / "original" / f"{name}.py", function)
        write(root / file, replaced(read(root / file), inner, blanked(read(root / file), inner, task.number, keeps(task, name))))
    return [f"{file}, line {span(read(root / file), inner)[0] + 1}" for _, file, inner, _ in found]


def solve(root, task):
    """Brings the originals back and keeps the student's functions. Returns: the folder with these. Raises: ValueError if there is no original."""
    kept = folder(root, task.number) / "original"
    if not kept.exists():
        raise ValueError(f"exercise {task.number}: " + ("this copy holds no solutions; ask whoever gave it to you" if is_handout(root)
                                                        else f"not begun here; `python -m exercises start {task.number}` begins it"))
    for name in task.functions:
        file, inner = place(name)
        yours = function_in(read(root / file), inner)
        if yours != read(kept / f"{name}.py"):
            write(folder(root, task.number) / "yours" / f"{name}.py", yours)
            write(root / file, replaced(read(root / file), inner, read(kept / f"{name}.py")))
    return folder(root, task.number) / "yours"


def handout(root, target):
    """Copies the project with every exercise blank and no originals. Raises: ValueError if one is begun here, or the target is not empty."""
    begun = [task.number for task in EXERCISES if is_open(root, task)]
    if begun:
        raise ValueError(f"exercise {begun[0]} is begun here, so its solution would be missing; bring it back with `python -m exercises solve {begun[0]}`")
    target = target.resolve()
    if root in target.parents or target == root or (target.exists() and any(target.iterdir())):
        raise ValueError(f"{target}: choose a new folder outside this project")

    def left_out(directory, names):
        return shutil.ignore_patterns(*LEFT_OUT)(directory, names) | (set(LEFT_OUT_AT_TOP) & set(names) if directory == str(root) else set())
    try:
        shutil.copytree(root, target, ignore=left_out, dirs_exist_ok=True)
    except shutil.Error as error:           # on a full disk: one triple for each file, of source, copy and reason
        reason = error.args[0][0][2].partition("] ")[2].partition(":")[0] or error.args[0][0][2]
        raise OSError(f"{target}: {len(error.args[0])} files could not be copied ({reason}); delete it, and make room or choose another folder") from None
    for task in EXERCISES:
        start(target, task)
    shutil.rmtree(target / KEPT)
    write(target / HANDOUT, "The exercises are blank in this copy, and it holds no solutions.\n")


# --- bugs -------------------------------------------------------------------------------------------------------------

def was_planted(root, bug):
    """Whether `break` put the bug in, and `solve` has not taken it out again."""
    return (root / KEPT / f"b{bug.number}").exists()


def is_broken(root, bug):
    """Whether the bug is in the copy: it was planted, and its wrong line is still there."""
    return was_planted(root, bug) and bug.after in read(root / bug.file)


def plant(root, bug):
    """Puts a bug into the copy. Raises: ValueError if its line is not as it was shipped."""
    text = read(root / bug.file)
    if is_broken(root, bug):
        raise ValueError(f"bug {bug.number} is already in the code; name it with `python -m exercises check b{bug.number} FILE EQUATION`")
    if text.count(bug.before) != 1:
        raise ValueError(f"bug {bug.number}: its place is not as it was shipped; " + (
            "exercises are blank in this copy, so hunt this bug in the project itself" if is_handout(root)
            else "bring back what you began there (`python -m exercises status`)"))
    hide(root)
    write(root / KEPT / f"b{bug.number}" / bug.file, text)
    write(root / bug.file, text.replace(bug.before, bug.after))


def mend(root, bug):
    """Takes a bug out again; other changes to the file stay. Raises: ValueError if it is not in, or its line was edited."""
    text = read(root / bug.file)
    if not was_planted(root, bug):
        raise ValueError(f"bug {bug.number}: not in this copy; put it in with `python -m exercises break {bug.number}`")
    if bug.before not in text and text.count(bug.after) != 1:
        raise ValueError(f"{bug.file}: the line has been edited; the file as it was is kept in {KEPT}/b{bug.number}/{bug.file}")
    write(root / bug.file, text.replace(bug.after, bug.before))
    shutil.rmtree(root / KEPT / f"b{bug.number}")
