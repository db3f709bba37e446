"""What several test files of the synthetic brackets use."""

import numpy as np
import pytest

from brackets.files import write_image


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Makes a folder of twenty small .hdr images and one of six renders. Returns: keyword arguments for SyntheticBrackets."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for k, letter in enumerate("abcdefghijklmnopqrst"):
        image = np.exp(rng.standard_normal((116, 116 + 2 * k, 3)))
        write_image(folder / "hdr" / f"picture_{letter}.hdr", image.astype(np.float32))
    for split, count in (("train", 4), ("val", 2)):
        (folder / "rendered" / split).mkdir(parents=True)
        for k in range(count):
            np.save(folder / "rendered" / split / f"{k:04d}.npy", np.exp(rng.standard_normal((3, 3, 48, 64))).astype(np.float16))
    return {"hdr_dir": folder / "hdr", "rendered_dir": folder / "rendered"}
