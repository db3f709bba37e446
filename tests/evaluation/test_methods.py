"""scoring.py: what a network's method makes of a bracket in which nothing moves."""

import math

import pytest
import torch

import evaluate
from beyond.still import EVEN, MOST
from brackets.merge import weighted_merge
from brackets.prepare import PrepareConfig, Prepared
from data import T
from evaluation import scoring
from lfdiff import reconstruct
from test_evaluate import tiny


@pytest.mark.parametrize(("noise", "share"), [(EVEN, 0.5), (math.inf, 0)])
def test_a_still_bracket_gets_the_mean_and_others_what_the_network_made(noise, share, monkeypatch):
    model, ldr, ev = tiny("s2"), torch.rand(3, 3, 32, 48), torch.tensor([0.0, 2.0, 4.0])
    model.prepare = PrepareConfig()
    monkeypatch.setattr(scoring, "prepare", lambda *_: Prepared(ldr, ev, None, None, ev, noise))
    method = scoring.network_method("s2", model, evaluate.EvaluateConfig(), torch.device("cpu"), torch.float32)
    found = T(method.predict("", {"ldr": ldr, "ev": ev}))
    merged = T(weighted_merge(ldr[None], ev[None]))
    plain = T(reconstruct(model, ldr[None], ev[None], generator=torch.Generator().manual_seed(0))).clamp(merged - MOST * noise, merged + MOST * noise)
    expected = (1 - share) * plain + share * merged
    assert (found - expected).abs().max() < 1e-5
