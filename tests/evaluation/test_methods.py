"""scoring.py: what a network's method makes of a bracket in which nothing moves."""

import math

import pytest
import torch

import evaluate
from beyond.still import EVEN, with_merge
from brackets.prepare import PrepareConfig, Prepared
from data import T
from evaluation import scoring
from lfdiff import reconstruct
from test_evaluate import tiny


@pytest.mark.parametrize("noise", [EVEN, math.inf])
def test_a_still_bracket_gets_the_mean_and_others_what_the_network_made(noise, monkeypatch):
    model, ldr, ev = tiny("s2"), torch.rand(3, 3, 32, 48), torch.tensor([0.0, 2.0, 4.0])
    model.prepare = PrepareConfig()
    monkeypatch.setattr(scoring, "prepare", lambda *_: Prepared(ldr, ev, None, None, ev, noise))
    method = scoring.network_method("s2", model, evaluate.EvaluateConfig(), torch.device("cpu"), torch.float32)
    found = T(method.predict("", {"ldr": ldr, "ev": ev}))
    plain = reconstruct(model, ldr[None], ev[None], generator=torch.Generator().manual_seed(0))
    assert ((found - T(plain)).abs().max() < 1e-5) == (noise == math.inf)
    assert (found - T(with_merge(plain, ldr[None], ev[None], noise))).abs().max() < 1e-5
