"""beyond/correct.py: D8, Eq. 10 as a correction of a merge."""

import numpy as np
import pytest
import torch

from beyond.correct import LEAST, PLACES, CorrectingDHRNet, add_correction
from beyond.fast import speed_up
from beyond.weights import load_weights, save_weights
from brackets.merge import merge_weights, weighted_merge
from brackets.prepare import UNPREPARED
from data import T, T_inverse, network_input, to_radiance
from slow import arrays, assert_close, bracket, conv_of, fresh, normal, randomise

torch.set_num_threads(1)


def correcting():
    """Makes a DHRNet with random weights throughout, in float64."""
    return randomise(add_correction(fresh("s2")).dhrnet)


@torch.no_grad()
def test_before_training_the_result_is_the_merge_but_for_a_little_of_what_lies_around():
    net, (ldr, ev, _) = add_correction(fresh("s2")).dhrnet, bracket(2, 16, 16)
    result, merge = net(network_input(ldr, ev), normal(2, 3, 4, 4)), weighted_merge(ldr, ev)
    assert (result - merge).abs().max() < 0.06          # 16 places of e^-5 are a twentieth of the whole
    flat = torch.full_like(ldr, 0.5)
    ev = torch.zeros_like(ev)
    assert torch.allclose(net(network_input(flat, ev), normal(2, 3, 4, 4)), torch.tensor(0.5 ** 2.2), atol=1e-6)


@torch.no_grad()
def test_the_output_agrees_with_its_formula_written_with_loops():
    net, (ldr, ev, _) = correcting(), bracket(1, 8, 8, seed=3)
    F, F_0, X = normal(1, 12, 8, 8).double(), normal(1, 12, 8, 8, seed=1).double(), network_input(ldr, ev).double()
    features, p = (F + F_0)[0].numpy(), arrays(net)
    H_frames, weights = to_radiance(ldr, ev)[0].double().numpy(), merge_weights(ldr)[0].double().numpy()
    merge_mu = T(torch.from_numpy((weights * H_frames).sum(0))).double().numpy()
    hdr_hat = T_inverse(torch.from_numpy(np.clip(merge_mu + conv_of(p, "out", features), 0, 1))).double().numpy()
    seen = np.concatenate([features, T(torch.from_numpy(np.stack([*H_frames, hdr_hat]))).double().numpy().reshape(12, 8, 8)])
    hidden = conv_of(p, "blend.compare", seen)
    scores = conv_of(p, "blend.weigh", np.where(hidden > 0, hidden, 0.01 * hidden))
    assert len(scores) == 52 and len(set(PLACES)) == 17
    expected = np.zeros((3, 8, 8))
    for c in range(3):
        for row in range(8):
            for column in range(8):
                choices, shares = [hdr_hat[c, row, column]], [np.exp(scores[51, row, column])]
                for k, (y, x) in enumerate(PLACES):
                    at = min(max(row + y, 0), 7), min(max(column + x, 0), 7)        # the rim continues beyond the image
                    for i in range(3):
                        choices.append(H_frames[i, c, *at])
                        shares.append(np.exp(scores[3 * k + i, row, column]) * max(weights[i, c, *at], LEAST))
                expected[c, row, column] = np.dot(shares, choices) / np.sum(shares)
    assert_close(net.float().output(F, F_0, X)[0], expected, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("k", "i"), [(0, 0), (0, 1), (0, 2), (1, 1), (10, 2), (16, 0)])
def test_it_can_give_a_frame_back_even_from_the_side(k, i):
    net, (ldr, ev, _) = add_correction(fresh("s2")).dhrnet, bracket(1, 16, 16)
    net.blend.weigh.bias[:] = -100.0
    net.blend.weigh.bias[3 * k + i] = 100.0
    result, (y, x) = net(network_input(ldr, ev), normal(1, 3, 4, 4)), PLACES[k]
    expected = to_radiance(ldr, ev)[:, i].roll((-y, -x), dims=(2, 3))
    assert torch.allclose(result[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], rtol=1e-6)


def test_a_gradient_reaches_every_parameter_once_the_last_convolutions_have_moved():
    net, (ldr, ev, hdr) = correcting().float(), bracket(2, 16, 16)
    (T(net(network_input(ldr, ev), normal(2, 3, 4, 4))) - T(hdr)).abs().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_the_fast_form_computes_the_same_in_strips(monkeypatch):
    monkeypatch.setattr("beyond.fast.STRIP_BYTES", 40_000)
    model = add_correction(fresh("s2"))
    randomise(model).float()
    (ldr, ev, _), z = bracket(1, 64, 48), normal(1, 3, 16, 12)
    plain = model.dhrnet(network_input(ldr, ev), z)
    assert (speed_up(model).dhrnet(network_input(ldr, ev), z) - plain).abs().max() < 1e-5


def test_weights_come_back_with_their_correction(tmp_path):
    model = add_correction(fresh("s2"))
    save_weights(tmp_path / "w.pt", model, UNPREPARED, {})
    assert isinstance(load_weights(tmp_path / "w.pt", fast=False).dhrnet, CorrectingDHRNet)
    assert add_correction(model) is model
