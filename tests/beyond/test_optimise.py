"""beyond/optimise.py: D7 and D12. The running mean is tested with the train scripts that use it."""

import math

import pytest
import torch

from beyond.config import BeyondConfig
from beyond.optimise import learning_rate
from training import TrainingConfig


def rates(beyond, steps, epochs=2, lr=0.5, first=0):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule, seen = learning_rate(optimiser, TrainingConfig(epochs=epochs, lr=lr, decay_epochs=1, decay=0.1), beyond, steps // epochs, first), []
    for _ in range(first, steps):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_without_the_flag_the_rate_falls_in_steps_as_in_the_paper():
    assert rates(BeyondConfig(), 6) == pytest.approx([0.5] * 3 + [0.05] * 3)


@pytest.mark.parametrize("beyond", [BeyondConfig(), BeyondConfig(cosine=4)])
@pytest.mark.parametrize("first", [1, 3, 7])
def test_a_run_that_goes_on_has_the_rates_that_it_would_have_had(beyond, first):
    assert rates(beyond, 8, first=first) == rates(beyond, 8)[first:]


def test_a_cosine_rises_first_and_ends_near_zero():
    seen = rates(BeyondConfig(cosine=4), 40)
    assert seen[:3] == pytest.approx([0.125, 0.25, 0.375])
    assert seen[20] == pytest.approx(0.25) and seen[30] == pytest.approx(0.5 * (0.5 + 0.5 * math.cos(0.75 * math.pi)))
    assert 0 < seen[-1] < 0.002 and all(a >= b for a, b in zip(seen[4:], seen[5:]))
