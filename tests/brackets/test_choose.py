"""choose.py: which frames the network sees, for hand-made brackets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brackets.choose import by_name, choose, in_words, load_three, pick_reference, stand_in
from brackets.files import write_image
from brackets.prepare import UNPREPARED, prepare
from brackets.scenes import Bracket, find_bracket


def steps(step, n):
    return np.arange(n) * step


def found(names, ev):
    return Bracket("scene", Path("scene"), [Path("scene") / name for name in names], np.asarray(ev, float), None, False)


@pytest.mark.parametrize(("ev", "reference", "known", "three", "beyond"), [
    (steps(2, 3), 1, None, (0, 1, 2), []),
    (steps(1, 5), 2, (2, 3), (0, 2, 4), []),
    (steps(1, 7), 3, (2, 3), (1, 3, 5), [0, 6]),
    (steps(1, 7), 3, (3, 3), (0, 3, 6), []),
    (steps(1, 7), 3, (0.7, 4), (2, 3, 4), [0, 1, 5, 6]),
    (steps(1, 9), 4, (2, 3), (2, 4, 6), [0, 1, 7, 8]),
    (steps(2, 5), 2, (2, 3), (1, 2, 3), [0, 4]),
    (steps(0.7, 7), 3, (2, 3), (0, 3, 6), []),
    (steps(4, 5), 2, (2, 3), (1, 2, 3), [0, 4]),
    (steps(1, 7), 0, (2, 3), (None, 0, 2), [3, 4, 5, 6]),
    (steps(2, 2), 1, (2, 3), (0, 1, None), []),
    ([0, 2, 2, 2.05, 4], 2, (2, 3), (0, 2, 4), []),
    ([0, 0.04, 2, 4, 6, 6.03], 2, (2, 3), (1, 2, 3), [4]),
])
def test_the_three_lie_at_known_steps_and_what_lies_beyond_them_is_kept(ev, reference, known, three, beyond):
    choice = choose(np.asarray(ev, float), reference, known)
    assert (choice.three, choice.beyond) == (three, beyond)


def test_frames_of_one_exposure_are_refused():
    with pytest.raises(ValueError, match="give frames of different exposure"):
        choose(np.array([0, 0.05]), 0)


def test_the_reference_is_named_by_file_stem_or_number():
    bracket = found(["1.jpg", "b.JPG", "3.tif", "a.png"], [0, 1, 2, 3])
    assert [by_name(bracket, name) for name in ("b.jpg", "B", "a.PNG", "2", "4", "3", "1")] == [1, 1, 3, 1, 3, 2, 0]
    for name in ("5", "0", "c", "-1"):
        with pytest.raises(ValueError, match=f"--reference {name}: not a frame of"):
            by_name(bracket, name)


def greys(folder, levels):
    """Makes photographs of one tone each. The given share of the pixels has this tone, and the rest is white. levels: list of (value, share)."""
    for i, (value, share) in enumerate(levels):
        image = np.full((10, 100, 3), 255, np.uint8)
        image[:, :round(100 * share)] = value
        write_image(folder / f"{i + 1}.png", image)
    return folder


def test_the_reference_is_the_frame_that_shows_clearly_most_near_the_middle(tmp_path):
    for name, shares, expected in (("middle", (1, 0.9, 0.85, 0.7, 0.2), 2), ("shorter", (1, 0.97, 0.85, 0.7, 0.2), 1), ("longer", (0.1, 0.2, 0.3, 0.9, 1), 3)):
        bracket = found([], steps(2, 5))
        bracket.paths = sorted(greys(tmp_path / name, [(100, share) for share in shares]).iterdir())
        assert pick_reference(bracket, (2, 3)) == expected, name
    bracket.ev = np.array([0, 2, 4, 7, 8])          # no frame lies at a known step above the fourth
    assert pick_reference(bracket, (2, 3)) == 2
    bracket.paths, bracket.ev = bracket.paths[:2], np.array([0, 2])
    assert pick_reference(bracket) == 1


def test_a_missing_frame_shows_the_reference_at_the_exposure_of_a_known_step(tmp_path):
    folder = greys(tmp_path / "two", [(60, 0.7), (120, 0.6)])
    (folder / "exposure.txt").write_text("0\n2\n", encoding="utf-8")
    bracket = find_bracket(folder)
    for reference, three, ev, k in ((1, (0, 1, None), [0, 2, 4], 2), (0, (None, 0, 1), [0, 2, 4], 0)):
        choice = choose(bracket.ev, reference, (2, 3))
        sample = load_three(bracket, choice)
        assert choice.three == three and sample["ev"].tolist() == ev and sample["ldr"][k].unique().tolist() == [k / 2]
        prepared = prepare(sample["ldr"], sample["ev"], UNPREPARED)
        assert stand_in(prepared.ldr, prepared.ev, choice) is prepared.ldr
        seen, expected = prepared.ldr[1], (prepared.ldr[1] ** 2.2 * 4.0 ** (k - 1)).clamp(max=1) ** (1 / 2.2)
        assert (prepared.ldr[k] - expected).abs().max() < 1e-6 and not torch.equal(prepared.ldr[k], seen)
    assert "there is no shorter frame; the reference stands in for it at 2 EV" in in_words(bracket, choice)
