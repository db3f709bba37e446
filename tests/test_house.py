"""The layout: the paper's files at the top level, a folder for everything else, imports in one direction, files short enough to read in one go."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAPER = ("align", "lpenet", "dhrnet", "denoiser", "ddim", "loss", "lfdiff")
SHARED, SCRIPTS = ("common", "training"), ("train_stage1", "train_stage2", "infer", "evaluate")
ROOMS = ("brackets", "synthetic", "beyond", "evaluation", "exercises")
# Each may import what comes before it, and what shares its place. The __main__ of a folder is a script.
ORDER = (("common",), ("data",), ("brackets",), ("synthetic",), PAPER, ("beyond",), ("training",), ("train_stage1", "train_stage2"), ("infer",),
         ("evaluation",), ("evaluate",), ("exercises",))
FILES = sorted([*ROOT.glob("*.py"), *(file for room in (*ROOMS, "examples", "tests") for file in (ROOT / room).rglob("*.py"))])


def imported(path):
    """Returns the first parts of the names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names.add(node.module.split(".")[0])
    return names


def place(name):
    """Returns where one of our modules stands in ORDER, or None for others."""
    return next((k for k, names in enumerate(ORDER) if name in names), None)


def lines(paths):
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)


def test_the_ground_floor_has_fourteen_files_and_few_lines():
    top = {path.stem for path in ROOT.glob("*.py")}
    assert top == {*PAPER, *SHARED, *SCRIPTS, "data"} and len(top) == 14
    assert lines(ROOT.glob("*.py")) <= 2100 and lines(ROOT / f"{name}.py" for name in PAPER) <= 1000


@pytest.mark.parametrize("name", PAPER)
def test_a_file_of_the_paper_imports_torch_numpy_the_standard_library_and_its_own_kind(name):
    allowed = {"torch", "numpy", "common", "data", *PAPER} | set(sys.stdlib_module_names)
    assert imported(ROOT / f"{name}.py") <= allowed


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[len(ROOT.parts)] not in ("tests", "examples") and path.stem != "__main__"],
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path):
    mine = place(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    assert mine is not None and all(place(name) is None or place(name) <= mine for name in imported(path))


@pytest.mark.parametrize("name", ["infer", "evaluate", "train_stage1", "train_stage2", "brackets/__main__", "evaluation/bench", "synthetic/__main__",
                                  "synthetic/rendered/__main__"])
def test_a_script_imports_common_before_anything_that_loads_torch(name):
    """common.py sets how OpenMP's threads wait for each other, which has an effect only before torch loads OpenMP."""
    modules = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
               for node in ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8")).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert next(module for module in modules if module.split(".")[0] not in sys.stdlib_module_names) == "common"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_is_longer_than_a_reader_s_patience(path):
    """The exceptions: hdrvdp2.py is meant to be used alone, and render_cafe.py holds the example's whole scene."""
    assert lines([path]) <= 420 or path.name in ("hdrvdp2.py", "render_cafe.py")


@pytest.mark.parametrize("name", ["align", "lpenet", "dhrnet", "denoiser", "ddim", "loss", "lfdiff"])
def test_a_component_run_by_itself_prints_its_shapes(name, capsys):
    runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    promised = {"align": "-> (1, 60, 64, 64)   489,720 parameters", "lpenet": "-> (1, 3, 16, 16)   151,203 parameters",
                "dhrnet": "-> (1, 3, 64, 64)", "denoiser": "-> (2, 3, 32, 32)", "ddim": "t = [200, 180,", "loss": "phi_44 (512 channels)",
                "lfdiff": "7.48 M"}
    assert promised[name] in capsys.readouterr().out
