"""README and docs say what is true: the equation table, files, commands and their flags, the lists of assumptions and departures."""

import ast
import re
from pathlib import Path

import pytest
import tyro

from evaluate import EvaluateConfig
from infer import InferConfig
from train_stage1 import Stage1Config
from train_stage2 import Stage2Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/*.md"))]
ROWS = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| `(\w+\.py)` `([\w.]+)` \| `(\w+\.py)` `(\w+)` \|$", README, re.MULTILINE)
CASES = [(int(number), *rest) for numbers, *rest in ROWS for number in numbers.split(",")]
CODE = [*ROOT.glob("*.py"), *(path for room in ("brackets", "beyond", "synthetic", "evaluation") for path in (ROOT / room).rglob("*.py"))]
SCRIPTS = {"infer.py": InferConfig, "evaluate.py": EvaluateConfig, "train_stage1.py": Stage1Config, "train_stage2.py": Stage2Config}


def source_of(path, name):
    """The source of a function, or of a method Class.name."""
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_that_a_page_gives_to_a_script_is_known(script, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(tyro.conf.OmitArgPrefixes[SCRIPTS[script]], args=["--help"])
    known, used = set(re.findall(r"--[a-zA-Z][\w-]*", capsys.readouterr().out)), set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(rf"(?:python |torchrun [^\n]*|`){re.escape(script)}([^`\n#]*)", text):
            used |= set(re.findall(r"--[a-zA-Z][\w-]*", command))
    assert used and used <= known


def test_the_tags_of_the_code_are_explained_in_the_readme():
    used = {tag for path in CODE for tag in re.findall(r"\bA\d+\b(?=[\]:|; ])", path.read_text(encoding="utf-8"))}
    listed = re.findall(r"^\| (A\d+) \|", README, re.MULTILINE)
    assert used <= set(listed) and listed == [f"A{i}" for i in range(1, 17)]
    departures = {tag for path in CODE for tags in re.findall(r"departs (D\d+(?:, D\d+)*)", path.read_text(encoding="utf-8")) for tag in tags.split(", ")}
    assert departures <= set(re.findall(r"^\| (D\d+) \|", README, re.MULTILINE))


def test_the_two_commands_are_there_for_ci():
    assert len(re.findall(r"^python3 -m venv ", README, re.MULTILINE)) == 2
