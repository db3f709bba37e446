"""Every number that the code marks with [paper: ...] is the paper's. The table was read from the paper, Sec. 4.1 and 5.1, not from the code."""

import ast
import re

from exercises.catalog import ROOT

# file: {name: (value, where the paper says so)}
TABLE = {
    "data.py": {"MU": (5000.0, "Sec. 4.1"), "GAMMA": (2.2, "Sec. 4.1")},
    "lpenet.py": {"prior_channels": (3, "Sec. 5.1"), "unshuffle": (4, "Sec. 5.1"), "prior_blocks": (4, "Sec. 5.1")},
    "dhrnet.py": {"channels": (60, "Sec. 5.1"), "frms": ((3, 3, 3), "Sec. 5.1"), "heads": (6, "Sec. 5.1"), "expansion": (2.66, "Sec. 5.1"),
                  "pool_frm": (2, "Sec. 5.1"), "pool_pim": (4, "Sec. 5.1")},
    "denoiser.py": {"unet_multipliers": ((1, 2, 2), "3 levels"), "unet_blocks": (2, "Sec. 5.1")},     # three levels; their widths are A8's
    "ddim.py": {"T": (200, "Sec. 5.1"), "S": (10, "Sec. 5.1")},
    "loss.py": {"lam": (0.01, "Sec. 4.1")},
    "training.py": {"data": ("kalantari", "Sec. 5.1"), "patch": (128, "Sec. 5.1"), "stride": (64, "Sec. 5.1"), "batch": (64, "Sec. 5.1"),
                    "epochs": (300, "Sec. 5.1"), "lr": (1e-4, "Sec. 5.1"), "decay": (0.1, "Sec. 5.1"), "decay_epochs": (50, "Sec. 5.1")},
    # The number in the tag is S of Sec. 5.1; 0 and () mean "as trained".
    "infer.py": {"steps": (0, "10")}, "evaluate.py": {"steps": ((), "10")}, "evaluation/bench.py": {"steps": (0, "10")},
}
CODE = sorted({*ROOT.glob("*.py"), *(path for room in ("brackets", "beyond", "evaluation") for path in (ROOT / room).rglob("*.py"))})


def marked(path):
    """Finds the values on lines with a tag [paper: ...], and what the tag cites. Returns: {name: (value, citation)}."""
    text, found = path.read_text(encoding="utf-8"), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.Constant, ast.Tuple)):
            cited = re.search(r"\[paper: ([^|\],]+)", text.split("\n")[node.lineno - 1])
            if cited:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                found[target.id] = ast.literal_eval(node.value), cited[1].strip().split(":")[0]
    return found


def test_every_number_marked_as_the_paper_s_is_the_paper_s():
    found = {path.relative_to(ROOT).as_posix(): marked(path) for path in CODE}
    assert {path: values for path, values in found.items() if values} == TABLE


def test_no_tag_of_a_value_is_overlooked():
    """Tags in docstrings are about a place, not a number. All others belong to a value of the table."""
    for path in CODE:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if re.search(r"#.*\[paper: ", line)]
        examples = 1 if path.name == "common.py" else 0             # its header shows how a config is written
        assert len(lines) - examples == len(TABLE.get(path.relative_to(ROOT).as_posix(), {})), path
