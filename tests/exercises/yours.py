"""The code that the exercises grade, and how its results are compared with the wanted ones: side by side, from the first place that differs."""

import importlib
import math
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

FILES = ("data", "align", "lpenet", "dhrnet", "denoiser", "ddim", "loss", "lfdiff")     # in the order of their imports
WIDTH = 6       # values of a row that are shown


def load_code():
    """Loads the paper's files as modules: code.data, code.dhrnet, ..."""
    return SimpleNamespace(**{name: importlib.import_module(name) for name in FILES})


@contextmanager
def modules_of(folder, mine):
    """Makes imports within it come from another copy of the project. mine: function (module) -> whether the module belongs to this project."""
    before = {name: module for name, module in sys.modules.items() if mine(name, module)}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name, module in sys.modules.items() if mine(name, module)]:
            del sys.modules[name]
        sys.modules.update(before)


def load_code_of(folder):
    """Loads the paper's files from another folder, as load_code does."""
    with modules_of(folder, lambda name, module: name in FILES):
        return load_code()


def same(what, yours, wanted, tolerance=1e-5):
    """Fails unless two tensors agree, and shows yours beside wanted and the first place where they differ. wanted: anything that makes a tensor."""
    wanted = torch.as_tensor(wanted).detach().double()
    if not isinstance(yours, torch.Tensor):
        pytest.fail(f"{what}: yours is {type(yours).__name__}, wanted is a tensor of shape {tuple(wanted.shape)}", pytrace=False)
    if yours.shape != wanted.shape:
        pytest.fail(f"{what}: the shapes differ\n    yours   {tuple(yours.shape)}\n    wanted  {tuple(wanted.shape)}", pytrace=False)
    error = (yours.detach().double() - wanted).abs()
    wrong = ~(error <= tolerance)                                               # NaN is wrong, too
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        first = max(place[-1] - WIDTH // 2, 0) if place else 0
        rows = [x.detach().double()[tuple(place[:-1])][first:first + WIDTH].tolist() if place else [float(x)] for x in (yours, wanted)]
        size = float(error[tuple(place)])
        digits = min(max(5, 1 - math.floor(math.log10(size))), 12) if 0 < size < math.inf else 5        # enough to see the difference
        mine, right = ("".join(f"{value:>{digits + 7}.{digits}f}" for value in row) for row in rows)
        mark = " " * ((digits + 7) * (place[-1] - first + 1 if place else 1) - 1) + "^"
        where = f", the first at {place}" if place else ""
        kind = "" if yours.dtype == torch.float64 or tolerance > 1e-6 else f" (yours is {str(yours.dtype).removeprefix('torch.')}, float64 is wanted)"
        pytest.fail(f"{what}: {int(wrong.sum())} of {wrong.numel()} values differ{where}{kind}\n    yours  {mine}\n    wanted {right}\n           {mark}",
                    pytrace=False)


def holds(what, true):
    """Fails unless `true`, with a sentence that says what should hold."""
    if not true:
        pytest.fail(what, pytrace=False)
