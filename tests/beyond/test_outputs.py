"""outputs.py: the files of a scene are the promised ones, and other programs can read them."""

import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from beyond.outputs import OutputConfig, Result, check_outputs, endings, write_exr, write_results
from brackets.exposures import read_exif, read_exposures
from brackets.files import read_image, to_float
from brackets.marks import ALIGNED, RESULT, mark_of
from brackets.prepare import UNPREPARED, prepare
from scripts import make_scene


@pytest.fixture
def result(tmp_path):
    folder, sample = make_scene(tmp_path / "scene")
    exif = Image.Exif()
    exif[0x0110] = "Camera 7"
    exif.get_ifd(0x8769).update({0x829A: 1 / 60, 0x829D: 8.0, 0x8827: 200})
    Image.fromarray(read_image(folder / "2.png")).save(folder / "2.png", exif=exif)
    prepared = prepare(sample["ldr"], sample["ev"], UNPREPARED)
    return Result(sample["hdr"][None], prepared, sample["ldr"][None], 0.0, folder / "2.png", "0.1 s on cpu in float32", None, None)


@pytest.mark.parametrize("config", [OutputConfig(), OutputConfig(exr=True, save_aligned=True)], ids=["default", "all"])
def test_the_files_are_those_that_endings_promises_and_each_is_marked(result, tmp_path, config):
    if config.exr:
        pytest.importorskip("OpenEXR")
    said = write_results(tmp_path / "out" / "garden.2", result, config)
    promised = {f"garden.2{ending}" for ending in endings(config, spread=False)}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == promised
    assert said.startswith("garden.2: 50x37, ")
    marks = {name: mark_of(tmp_path / "out" / name) for name in promised if name.endswith((".jpg", ".png", ".tif"))}
    assert marks == {name: ALIGNED if "aligned" in name else RESULT for name in marks}


def test_the_picture_has_the_exposure_and_the_camera_of_the_reference(result, tmp_path):
    write_results(tmp_path / "garden", result, OutputConfig())
    assert {name: round(value, 6) for name, value in read_exif(tmp_path / "garden.jpg").items() if value} == {"time": 0.016667, "f_number": 8.0, "iso": 200.0}
    with Image.open(tmp_path / "garden.jpg") as image:
        assert image.getexif()[0x0110] == "Camera 7" and image.size == (50, 37)


def test_the_aligned_frames_are_what_the_network_sees_and_their_exposures_stand_beside_them(result, tmp_path):
    result.prepared.ldr = torch.rand(3, 3, 37, 50)
    result.prepared.ev = torch.tensor([0.0, 2.0123, 4.06])
    write_results(tmp_path / "garden", result, OutputConfig(save_aligned=True))
    for i in (1, 2, 3):
        stored = tifffile.imread(tmp_path / f"garden_aligned_{i}.tif")
        assert stored.dtype == np.uint16 and stored.shape == (37, 50, 3)
        assert np.abs(to_float(stored) - result.prepared.ldr[i - 1].permute(1, 2, 0).numpy()).max() <= 0.51 / 65535
    assert np.allclose(read_exposures(tmp_path / "garden_aligned_exposure.txt"), [0, 2.012, 4.06])


def test_the_exr_holds_the_radiance_in_half_floats(result, tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    write_results(tmp_path / "garden", result, OutputConfig(exr=True))
    with openexr.File(str(tmp_path / "garden.exr")) as file:
        pixels = file.channels()["RGB"].pixels
    assert pixels.dtype == np.float16
    assert np.allclose(pixels, result.hdr_hat[0].permute(1, 2, 0).numpy(), rtol=2 ** -11, atol=2 ** -25)


def test_exr_without_its_package_is_refused_before_any_work(monkeypatch):
    check_outputs(OutputConfig())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--exr: OpenEXR is not installed; run pip install -r requirements-exr.txt"):
        check_outputs(OutputConfig(exr=True))


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_an_exr_that_does_not_fit_on_the_disk_is_one_error_that_names_it(tmp_path):
    pytest.importorskip("OpenEXR")
    import resource
    limits, noise = resource.getrlimit(resource.RLIMIT_FSIZE), np.random.default_rng(0).random((60, 80, 3), np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.exr: cannot be written \(File too large\); make room"):
            write_exr(tmp_path / "a.exr", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
