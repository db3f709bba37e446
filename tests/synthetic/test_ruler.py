"""synthetic/ruler.py: the scenes that weights are chosen by."""

from collections import Counter

import numpy as np
import pytest

from synthetic.ruler import HALVES, RULER, kind_and_step, ruler


def test_each_half_has_every_kind_at_every_step_a_third_of_it_static():
    for first in HALVES.values():
        scenes = Counter(kind_and_step(first + index) for index in range(RULER))
        assert {kind: sum(n for (k, _), n in scenes.items() if k == kind) for kind, _ in scenes} == {
            "static": 24, "moving": 12, "curve": 12, "any": 12, "night": 12}
        assert {kind: n for (kind, _), n in scenes.items()} == {"static": 6, "moving": 3, "curve": 3, "any": 3, "night": 3} and len(scenes) == 20


def test_a_static_scene_stands_still_in_renders_too_and_is_exact(folders):
    scenes = ruler(48, RULER, **folders)
    still = [index for index in range(9) if kind_and_step(index)[0] == "static"]
    assert {scenes.source(index)[0] for index in still} == {"procedural", "photographed", "rendered"}
    for index in still:
        ldr, ev, hdr, _ = scenes.bracket(index)
        exact = np.clip(hdr * 2.0 ** ev[:, None, None, None], 0, 1)
        seen = (exact > 0.05) & (exact < 0.9)
        light = ldr ** 2.2
        error = np.abs(np.log2(light[seen] / exact[seen]))
        assert np.median(error) < 0.1 and np.ptp(np.diff(ev)) == 0 and ev[1] == kind_and_step(index)[1]     # sRGB is off by up to 0.1


def test_names_tell_kind_step_and_source_and_the_halves_share_none(folders):
    names = {half: [ruler(48, RULER, **folders, half=half).name(index) for index in range(RULER)] for half in ("val", "test")}
    assert names["val"][0].startswith("static_1ev_procedural_000") and names["test"][0].split("_")[3] == "144"
    assert len({*names["val"], *names["test"]}) == 2 * RULER
    with pytest.raises(ValueError, match="73 scenes were asked for; each half has 72"):
        ruler(48, RULER + 1, **folders)
