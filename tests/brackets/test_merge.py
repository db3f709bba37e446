"""merge.py: the plain merge against values computed by hand."""

import pytest
import torch

from brackets.merge import PLAIN, weighted_merge


def bracket_of(hdr, ev=(0.0, 2.0, 4.0)):
    """Makes a noise-free bracket of (3, H, W) radiance."""
    ev = torch.tensor([ev])
    return (hdr * 2 ** ev[0, :, None, None, None]).clamp(0, 1)[None] ** (1 / 2.2), ev


def test_merge_of_a_still_scene_without_noise_is_the_radiance():
    hdr = torch.logspace(-5, 0, 300).reshape(3, 10, 10)
    assert torch.allclose(weighted_merge(*bracket_of(hdr))[0], hdr, rtol=1e-4)


@pytest.mark.parametrize("frames, weights", [((0.1, 0.5, 0.75), (0.2, 1, 0.5)), ((0.8, 0.9, 0.25), (1, 0.2, 1)), ((0.5, 0.2, 1), (1, 0.4, 0))])
def test_merge_weighs_by_triangles(frames, weights):
    ldr = torch.tensor(frames).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    expected = sum(w * value ** 2.2 / t for w, value, t in zip(weights, frames, (1, 4, 16))) / sum(weights)
    assert torch.allclose(weighted_merge(ldr, torch.tensor([[0.0, 2.0, 4.0]])), torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("frames, expected", [((1, 1, 1), 1.0), ((0.9, 1, 1), 0.9 ** 2.2), ((0, 0, 0), 0.0),
                                              ((0, 0, 0.4), 0.4 ** 2.2 / 16), ((0, 1, 1), 0.25), ((0, 0, 1), 0.0)])
def test_merge_at_the_ends_of_the_range(frames, expected):
    ldr = torch.tensor(frames, dtype=torch.float32).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    merged = weighted_merge(ldr, torch.tensor([[0.0, 2.0, 4.0]]))
    assert torch.allclose(merged, torch.tensor(float(expected)), rtol=1e-5)


def test_the_reference_alone_and_the_weighted_merge_need_no_network():
    ldr, ev = torch.rand(2, 3, 3, 4, 5), torch.tensor([[0.0, 2.0, 4.0], [0.0, 3.0, 6.0]])
    assert [*PLAIN] == ["reference alone", "weighted merge"]
    assert torch.allclose(PLAIN["reference alone"](ldr, ev), ldr[:, 1] ** 2.2 / torch.tensor([4.0, 8.0])[:, None, None, None], rtol=1e-5)
    assert torch.equal(PLAIN["weighted merge"](ldr, ev), weighted_merge(ldr, ev))
