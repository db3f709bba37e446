"""What several test files use: a trained network, tiny and bad."""

import pytest

from scripts import stage1, stage2


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tiny stage 1 of 120 steps and a tiny stage 2 of 40."""
    folder = tmp_path_factory.mktemp("runs")
    first = stage1(folder / "stage1", "--epochs", "30", "--lr", "3e-3", "--val-every", "12", "--log-every", "12")
    second = stage2(folder / "stage2", first, "--epochs", "10", "--lr", "2e-3", "--warmup", "0.5")
    return first, second
