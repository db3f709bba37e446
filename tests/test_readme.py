"""The README says what is true: its equation table, its commands, its files."""

import argparse
import ast
import re
from pathlib import Path

import pytest

from common import _add_flags
from evaluate import EvaluateConfig
from infer import InferConfig
from train_stage1 import Stage1Config
from train_stage2 import Stage2Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| `(\w+\.py)` `([\w.]+)` \| `(\w+\.py)` `(\w+)` \|$", README, re.MULTILINE)
CASES = [(int(number), *rest) for numbers, *rest in ROWS for number in numbers.split(",")]


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


def test_every_file_of_the_readme_exists_and_every_script_is_named():
    named = set(re.findall(r"`(\w+\.py)`", README))
    scripts = {path.name for path in ROOT.glob("*.py")}
    assert scripts <= named and all((ROOT / name).is_file() or (ROOT / "tests" / name).is_file() for name in named)


def test_every_flag_of_the_readme_is_known():
    known = set()
    for config in (InferConfig, EvaluateConfig, Stage1Config, Stage2Config):
        parser = argparse.ArgumentParser()
        _add_flags(parser, config)
        known.update(flag for action in parser._actions for flag in action.option_strings)
    blocks = re.findall(r"(?:python |torchrun .*|`)(?:train_stage\d|infer|evaluate)\.py[^`\n]*", README)
    used = {flag for block in blocks for flag in re.findall(r"--[a-z][\w-]*", block)}
    assert used and used - {"--nproc-per-node"} <= known


def test_the_tags_of_the_code_are_explained_in_the_readme():
    used = {tag for path in ROOT.glob("*.py") for tag in re.findall(r"\bA\d+\b(?=[\]:|; ])", path.read_text(encoding="utf-8"))}
    listed = set(re.findall(r"^\| (A\d+) \|", README, re.MULTILINE))
    assert used <= listed and {f"A{i}" for i in range(1, 17)} == listed - {"none"}
    departures = {tag for path in ROOT.glob("*.py") for tag in re.findall(r"departs (D\d+)", path.read_text(encoding="utf-8"))}
    assert departures <= set(re.findall(r"^\| (D\d+) \|", README, re.MULTILINE))


def test_the_two_commands_are_there_for_ci():
    assert len(re.findall(r"^python3 -m venv ", README, re.MULTILINE)) == 2
