"""What several test files use: a tiny, badly trained network; and `pytest --ex 5`, which runs only the tests of exercise 5."""

import re

import pytest


def pytest_addoption(parser):
    parser.addoption("--ex", type=int, action="append", help="grade this exercise (see exercises/README.md)")


def pytest_ignore_collect(collection_path, config):
    """With --ex, other tests are not even imported: on import, some of them call a function of the paper, which may be blank."""
    return True if config.getoption("ex") and collection_path.suffix == ".py" and not collection_path.stem.startswith("test_exercises_") else None


def pytest_collection_modifyitems(config, items):
    asked = config.getoption("ex")
    if asked:
        graded = [item for item in items if (number := re.match(r"test_ex(\d+)_", item.name)) and int(number[1]) in asked]
        config.hook.pytest_deselected(items=[item for item in items if item not in graded])
        items[:] = graded


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Trains a tiny stage 1 of 120 steps and a tiny stage 2 of 40."""
    from scripts import stage1, stage2      # here, because they import every script, which the exercises do not need
    folder = tmp_path_factory.mktemp("runs")
    first = stage1(folder / "stage1", "--epochs", "30", "--lr", "3e-3", "--val-every", "24", "--log-every", "12")
    second = stage2(folder / "stage2", first, "--epochs", "10", "--lr", "2e-3", "--warmup", "0.5", "--val-every", "8")
    return first, second
