"""beyond/blend.py: D8."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

from beyond.blend import Blend, add_blend
from data import T, network_input, to_radiance
from dhrnet import DHRNet
from slow import arrays, assert_close, bracket, conv_of, fresh, normal, rand, randomise

torch.set_num_threads(1)


def blended_dhrnet():
    return add_blend(fresh("s2")).dhrnet


def eq_10_alone(net):
    """The same weights in the paper's own DHRNet."""
    plain = fresh("s2").dhrnet
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if not name.startswith("blend.")})
    return plain


@torch.no_grad()
def test_a_blend_is_the_weighted_mean_of_the_frames_and_eq_10():
    blend, F, H_frames, hdr_hat = randomise(Blend(5)), normal(1, 5, 6, 7).double(), rand(1, 3, 3, 6, 7, seed=1).double(), rand(1, 3, 6, 7, seed=2).double()
    seen = np.concatenate([F[0].numpy(), *T(H_frames)[0].numpy(), T(hdr_hat)[0].numpy()])
    hidden = conv_of(arrays(blend), "compare", seen)
    scores = conv_of(arrays(blend), "weigh", np.where(hidden > 0, hidden, 0.01 * hidden))
    slow = np.zeros((3, 6, 7))
    for c in range(3):
        weights = np.exp([scores[3 * i + c] for i in range(4)])
        choices = [H_frames[0, i, c].numpy() for i in range(3)] + [hdr_hat[0, c].numpy()]
        slow[c] = sum(w * choice for w, choice in zip(weights, choices)) / weights.sum(0)
    assert_close(blend(F, H_frames, hdr_hat)[0], slow, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_blend_can_give_a_frame_back_exactly(i):
    net, z, (ldr, ev, _) = blended_dhrnet(), normal(1, 3, 4, 4), bracket(1, 16, 16)
    net.blend.weigh.bias[:] = -100.0
    net.blend.weigh.bias[3 * i:3 * i + 3] = 100.0
    assert torch.equal(net(network_input(ldr, ev), z), to_radiance(ldr, ev)[:, i])


@torch.no_grad()
def test_a_fresh_blend_is_eq_10_and_a_little_of_the_frames():
    net, z, (ldr, ev, _) = blended_dhrnet(), normal(1, 3, 4, 4), bracket(1, 16, 16)
    blended, direct = net(network_input(ldr, ev), z), DHRNet.forward(eq_10_alone(net), network_input(ldr, ev), z)
    share = math.exp(3) / (math.exp(3) + 3)
    assert share > 0.85 and torch.allclose(blended, share * direct + (1 - share) * to_radiance(ldr, ev).mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("rank, eq_10", [(0, [1]), (1, [0, 2])])
def test_in_training_every_other_patch_of_the_whole_batch_is_eq_10_alone(monkeypatch, rank, eq_10):
    """Each of two processes has three patches: 0 to 2 and 3 to 5. Which ones teach Eq. 10 must not depend on the processes."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    net, z, (ldr, ev, _) = blended_dhrnet(), normal(3, 3, 4, 4), bracket(3, 16, 16)
    trained = net(network_input(ldr, ev), z).detach()
    with torch.no_grad():
        blended = net.eval()(network_input(ldr, ev), z)
        direct = DHRNet.forward(eq_10_alone(net), network_input(ldr, ev), z)
    for i in range(3):
        assert torch.allclose(trained[i], direct[i] if i in eq_10 else blended[i])
        assert (blended[i] - direct[i]).abs().max() > 0.01


def test_a_blend_is_added_once_and_keeps_the_weights_behind_which_it_stands():
    model = fresh("s2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blend = add_blend(model).dhrnet.blend
    assert add_blend(model).dhrnet.blend is blend
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name for name in after if name not in before} == {f"dhrnet.blend.{conv}.{part}" for conv in ("compare", "weigh") for part in ("weight", "bias")}
