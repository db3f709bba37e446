"""README and docs say what is true: the equation table, files, commands and their flags, the lists of assumptions and departures."""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(path for path in ROOT.glob("*/*.md") if not path.parent.name.startswith("."))]
ROWS = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| `(\w+\.py)` `([\w.]+)` \| `(\w+\.py)` `(\w+)` \|$", README, re.MULTILINE)
CASES = [(int(number), *rest) for numbers, *rest in ROWS for number in numbers.split(",")]
CODE = [*ROOT.glob("*.py"), *(path for room in ("brackets", "beyond", "synthetic", "evaluation", "exercises", "examples")
                              for path in (ROOT / room).rglob("*.py"))]
FLAG = r"(?<![\w-])--[a-zA-Z][\w-]*"


def source_of(path, name):
    """Returns the source of a function, or of a method Class.name."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = ast.parse(text)
    for part in name.split("."):
        found = next(node for node in found.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == part)
    return ast.get_source_segment(text, found)


@pytest.mark.parametrize(("number", "file", "function", "test_file", "test"), CASES)
def test_an_equation_stands_where_the_table_says(number, file, function, test_file, test):
    assert f"# Eq. {number}:  " in source_of(file, function)
    assert source_of(f"tests/{test_file}", test)


def test_the_table_holds_every_equation_of_the_paper():
    assert {number for number, *_ in CASES} == set(range(1, 16))


def test_every_equation_comment_is_in_the_table():
    in_code = {(int(number), path.name) for path in ROOT.glob("*.py") for number in re.findall(r"# Eq\. (\d+):", path.read_text(encoding="utf-8"))}
    assert in_code == {(number, file) for number, file, *_ in CASES}


def test_the_readme_is_short_and_names_every_file_of_the_ground_floor_and_every_room():
    assert README.count("\n") <= 200
    assert all(path.name in README for path in ROOT.glob("*.py"))
    assert all(f"{room}/" in README for room in ("brackets", "synthetic", "evaluation", "beyond", "docs", "examples", "weights", "tests"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_links_or_runs_exists(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for script in re.findall(r"python3? ((?:examples/|weights/)?\w+\.py)", text):
        assert (ROOT / script).is_file() or (page.parent / script).is_file(), script
    for module in re.findall(r"python3? -m ((?:brackets|synthetic|evaluation|beyond)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def flags_of_commands():
    """Collects what the pages run, and with which flags. Returns: {file: set of flags}."""
    used = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for module, script, words in re.findall(r"(?:python3? |torchrun [^\n`]*?|`)(?:-m ([\w.]+)|([\w/]+\.py))\b([^`\n#]*)", text):
            paths = [ROOT / script, page.parent / script] if script else [ROOT / module.replace(".", "/") / "__main__.py"]
            file = next((path.relative_to(ROOT).as_posix() for path in paths if path.is_file()), None)
            if file and (flags := re.findall(FLAG, words)):
                used.setdefault(file, set()).update(flags)
    return used


def known_flags(file, monkeypatch, capsys):
    """Returns the flags that the --help of a file lists."""
    monkeypatch.setattr("sys.argv", [file, "--help"])
    monkeypatch.syspath_prepend(str((ROOT / file).parent))          # as Python does; an example imports its neighbour
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert left.value.code in (0, None)
    return set(re.findall(FLAG, capsys.readouterr().out))


@pytest.mark.parametrize("file", sorted(flags_of_commands()))
def test_every_flag_that_a_page_gives_to_a_script_is_in_its_help(file, monkeypatch, capsys):
    assert flags_of_commands()[file] - known_flags(file, monkeypatch, capsys) == set()


def test_the_search_for_flags_finds_scripts_modules_and_examples():
    found = flags_of_commands()
    assert {"infer.py", "evaluate.py", "train_stage1.py", "train_stage2.py", "synthetic/__main__.py", "examples/spread.py"} <= set(found)
    assert "--scene" in found["infer.py"] and "--stage1" in found["train_stage2.py"] and "--hdr-dir" in found["synthetic/__main__.py"]


def test_every_flag_that_a_page_names_alone_belongs_to_some_script(monkeypatch, capsys):
    others = {"--extra-index-url", "--rdzv-id", "--help"}           # pip's, torchrun's, and everybody's
    known = others.union(*(known_flags(file, monkeypatch, capsys) for file in sorted({*flags_of_commands(), "brackets/__main__.py"})))
    for page in PAGES:
        named = {flag for quoted in re.findall(r"`(--[^`\n]+)`", page.read_text(encoding="utf-8")) for flag in re.findall(FLAG, quoted)}
        assert named <= known, f"{page.name}: {named - known}"


def test_the_tags_of_the_code_are_explained_in_the_readme():
    used = {tag for path in CODE for tag in re.findall(r"\bA\d+\b(?=[\]:|; ])", path.read_text(encoding="utf-8"))}
    listed = re.findall(r"^\| (A\d+) \|", README, re.MULTILINE)
    assert used <= set(listed) and listed == [f"A{i}" for i in range(1, 17)]
    departures = {tag for path in CODE for tags in re.findall(r"departs (D\d+(?:, D\d+)*)", path.read_text(encoding="utf-8")) for tag in tags.split(", ")}
    assert departures <= set(re.findall(r"^\| (D\d+) \|", README, re.MULTILINE))


def test_the_two_commands_are_there_for_ci():
    assert len(re.findall(r"^python3 -m venv ", README, re.MULTILINE)) == 2
