"""beyond/pictures.py: what is drawn, and the spread of several samples."""

import numpy as np
import torch
from PIL import Image

from beyond.pictures import panels, regions, sample_images, save_panel, shrunk_bracket
from beyond.tonemap import picture
from beyond.weights import load_weights
from data import T
from lfdiff import reconstruct
from synthetic.dataset import SyntheticBrackets, SyntheticConfig


def test_panel_is_a_readable_picture_with_room_for_all(tmp_path):
    path = tmp_path / "deep" / "panel.png"
    red = torch.tensor([2.0, -1.0, 0.0]).reshape(3, 1, 1).expand(3, 20, 30)         # values out of range are clipped
    save_panel(path, [("a", red), ("b", red), ("c", red), ("d", red)], columns=3, width=1.0)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 450 and 200 < pixels.shape[0] < 350                   # 3 inches wide, two rows of 0.67 + 0.3 inches, 150 a inch
    found = (pixels == (255, 0, 0)).all(axis=2)
    h, w = found.shape
    assert found[:h // 2, :w // 3].any() and found[:h // 2, -w // 3:].any() and found[h // 2:, :w // 3].any() and not found[h // 2:, -w // 3:].any()


def test_a_very_tall_picture_makes_no_huge_panel(tmp_path):
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1).expand(3, 3000, 30)
    save_panel(tmp_path / "panel.png", [("a", red)] * 3, columns=3, width=1.0)
    with Image.open(tmp_path / "panel.png") as image:
        assert image.size == (450, 495)                     # 3 inches wide, 3 + 0.3 high: not 15,000 pixels
        assert (np.asarray(image.convert("RGB")) == (255, 0, 0)).all(axis=2).any()


def photograph():
    """Makes a synthetic bracket at a step that the weights know, so it is seen as it was taken."""
    return SyntheticBrackets(48, seed=3, config=SyntheticConfig(ev_steps=(2.0,)))[0]


def test_equal_seeds_have_no_spread_and_the_spread_of_others_is_their_standard_deviation(trained):
    model, sample = load_weights(trained[1] / "weights.pt"), photograph()
    ldr, ev = sample["ldr"][None], sample["ev"][None]
    mean, spread = sample_images(model, ldr, ev, [4, 4, 4])
    images = [reconstruct(model, ldr, ev, generator=torch.Generator().manual_seed(seed)) for seed in (4, 5, 6)]
    assert torch.equal(spread, torch.zeros(1, 1, 48, 48)) and torch.equal(mean, images[0])
    mean, spread = sample_images(model, ldr, ev, [4, 5, 6])
    stack = torch.stack(images).double()
    assert spread.min() > 0 and (mean - stack.mean(0)).abs().max() < 1e-6
    assert (spread - T(stack).var(0, correction=0).mean(1, keepdim=True).sqrt()).abs().max() < 1e-6


def test_regions_are_those_of_a_hand_made_bracket():
    H = torch.tensor([0.1, 0.9, 0.9, 0.1, 0.25])                # the five pixels at the reference's moment; the reference saturates at 1/4
    short = torch.tensor([0.1, 0.9, 0.1, 0.9, 0.25])            # at the short frame's moment: something dark has moved in front of the third
    frames = [(radiance * 2 ** stops).clamp(0, 1) ** (1 / 2.2) for radiance, stops in ((short, 0), (H, 2), (H, 4))]
    ldr = torch.stack(frames)[None, :, None, None, :].repeat(1, 1, 3, 1, 1)                 # (1, 3, 3, 1, 5)
    found = [region.flatten().tolist() for region in regions(ldr, torch.tensor([[0.0, 2.0, 4.0]])).values()]
    assert found == [[False, False, True, False, False], [False, True, False, False, True], [True, False, False, True, False]]


def test_a_shrunk_bracket_is_related_by_its_own_pixels():
    """The full homography moves the centre of a 2x2 block to the same place to which the shrunk bracket's homography moves that block's pixel."""
    homography = torch.tensor([[1.01, 0.02, 30], [-0.01, 0.98, -20], [1e-5, -2e-5, 1]], dtype=torch.float64)
    small, found = shrunk_bracket(torch.rand(3, 3, 3000, 16), homography.expand(3, 3, 3))
    assert small.shape == (3, 3, 1500, 8)
    whole, shrunk = homography @ torch.tensor([8.5, 100.5, 1]).double(), found[1] @ torch.tensor([4.0, 50.0, 1]).double()
    assert torch.allclose((whole[:2] / whole[2] - 0.5) / 2, shrunk[:2] / shrunk[2], atol=1e-9)


def test_the_panel_ends_with_the_picture_of_name_jpg_and_has_truth_and_error_where_there_is_a_truth():
    sample = SyntheticBrackets((48, 64), seed=3)[0]
    ldr, ev, hdr = sample["ldr"][None], torch.tensor([[0.0, 2.0123, 4.0]]), sample["hdr"]
    for truth, titles, columns in ((None, [], 3), (hdr, ["truth", "5 x |LF-Diff - truth|"], 4)):
        shown, found = panels(ldr, ev, 0.9 * hdr[None], truth)
        assert [title for title, _ in shown] == ["frame 1, +0 EV", "frame 2, +2.01 EV", "frame 3, +4 EV", "weighted merge", "LF-Diff", *titles,
                                                 "LF-Diff, as in NAME.jpg"] and found == columns
        assert all(image.shape == (3, 48, 64) for _, image in shown)
        again, _ = panels(ldr, ev, 0.9 * hdr[None], truth, for_the_eye=picture((0.9 * hdr).permute(1, 2, 0).numpy()))
        assert torch.equal(again[-1][1], shown[-1][1])
        last = (shown[-1][1] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(last, picture((0.9 * hdr).permute(1, 2, 0).numpy()))
