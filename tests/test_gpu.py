"""Everything that touches a device: both stages, resuming, torchrun, infer, tiles, the benchmark, torch.compile.

    python -m pytest tests/test_gpu.py                              on a GPU with CUDA; without one, only the shapes are checked
    LFDIFF_TEST_DEVICE=mps python -m pytest tests/test_gpu.py       on another device (cpu tests these tests)

The first test needs no GPU, only a PyTorch built with CUDA: it runs on fake tensors, which have a device and a dtype but no values.
"""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import infer
import train_stage1
import train_stage2
from beyond.checkpoints import load_checkpoint
from beyond.fast import speed_up
from beyond.tiles import reconstruct_in_tiles
from beyond.weights import SHIPPED, load_weights
from brackets.files import read_image
from common import pick_device, pick_precision
from data import network_input
from evaluation import bench
from lfdiff import reconstruct
from loss import diffusion_loss, reconstruction_loss
from scripts import DATA, DM, NET, ROOT, column, make_scene, run_script, weights
from slow import bracket, fresh

DEVICE = os.environ.get("LFDIFF_TEST_DEVICE", "cuda")
HERE = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}[DEVICE]()
on_the_device = pytest.mark.skipif(not HERE, reason=f"there is no {DEVICE} device")
SHORT = [*DATA, "--device", DEVICE, "--precision", "auto", "--epochs", "2"]         # 8 steps
PRECISIONS = ["float32", "bfloat16", "float16"] if DEVICE == "cuda" else ["auto"]


# --- fake tensors -----------------------------------------------------------------------------------------------------

def faked(module, fake):
    """Returns the same module with parameters and buffers on a fake device."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, torch.nn.Parameter(fake(parameter.data), requires_grad=parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = fake(buffer)
    return module


@pytest.mark.parametrize("variant", ["baseline", "s1", "s2_without_dm", "s2"])
@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("cuda", torch.bfloat16), ("cuda", torch.float16)])
def test_a_training_pass_keeps_its_device_and_its_losses_float32_on_fake_tensors(variant, device, dtype):
    if device == "cuda" and not torch.backends.cuda.is_built():
        pytest.skip("this PyTorch was built without CUDA")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = lambda x: FakeTensor(mode, x.to("meta"), torch.device(device))
    network = faked(speed_up(fresh(variant)), fake)
    ldr, ev, hdr = map(fake, bracket(2, 32, 32))
    z, t = fake(torch.zeros(2, 3, 8, 8)), fake(torch.tensor([1, 5]))
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    with mode:
        try:                                # torch.autocast turns itself off where there is no GPU
            torch.set_autocast_enabled(device, True)
            torch.set_autocast_dtype(device, dtype)
            X = network_input(ldr, ev)
            hdr_hat, z_hat, eps_hat = network(X, z, t, z, z) if variant.startswith("s2") else (network(X, hdr), z, None)
        finally:
            torch.set_autocast_enabled(device, before[0])
            torch.set_autocast_dtype(device, before[1])
        L = reconstruction_loss(hdr_hat, hdr, None, 0)[0] + (diffusion_loss(z, eps_hat, z_hat, z)[0] if variant.startswith("s2") else 0)
        assert hdr_hat.device.type == L.device.type == device and hdr_hat.dtype == L.dtype == torch.float32 and hdr_hat.shape == hdr.shape
        L.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and gradient.device.type == device and gradient.dtype == torch.float32 for gradient in gradients.values())


# --- the device itself ------------------------------------------------------------------------------------------------

@on_the_device
@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_stages_train_validate_and_go_on(tmp_path, precision):
    one, two = tmp_path / "one", tmp_path / "two"
    for script, out, words in ((train_stage1, one, NET), (train_stage2, two, [*DM, "--stage1", one / "last.pt", "--warmup", "0.5"])):
        words = [*SHORT, *words, "--precision", precision, "--ema", "0.9"]
        run_script(script, *words, "--out", out)
        run_script(script, *words, "--out", out, "--epochs", "3", "--resume")
        assert load_checkpoint(out / "last.pt")["step"] == 12 and all(math.isfinite(loss) for loss in column(out, "grad_norm")[1:])
        assert all(value.isfinite().all() and value.device.type == "cpu" for value in weights(out).values())
    assert len(column(two, "val_psnr_mu_predicted")) == 3 and (two / "weights.pt").exists()


@on_the_device
def test_torchrun_trains_over_one_device(tmp_path):
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", str(ROOT / "train_stage1.py"), *SHORT, *NET,
                           "--out", str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and load_checkpoint(tmp_path / "last.pt")["step"] == 8, done.stderr


@on_the_device
def test_the_device_gives_the_image_of_the_cpu_whole_and_in_tiles():
    ldr, ev, _ = bracket(1, 64, 304)
    device = pick_device(DEVICE)
    pick_precision("float32", device)                       # no TF32
    models = [load_weights(SHIPPED, where) for where in ("cpu", device)]
    for tile in (0, 256):
        with torch.no_grad():
            there, here = (reconstruct_in_tiles(model, ldr.to(where), ev.to(where), tile, None, "ddim", torch.Generator().manual_seed(0)).cpu()
                           for model, where in zip(models, ("cpu", device)))
        assert (there - here).abs().max() < 1e-3


@on_the_device
@pytest.mark.parametrize("precision", PRECISIONS)
def test_infer_writes_its_files(tmp_path, precision):
    folder, _ = make_scene(tmp_path / "scene", size=(64, 304))
    run_script(infer, "--scene", folder, "--device", DEVICE, "--precision", precision, "--samples", "2", "--tile", "256", "--out", tmp_path / "out")
    assert read_image(tmp_path / "out" / "scene.hdr").shape == (64, 304, 3) and (tmp_path / "out" / "scene_spread.png").exists()


@on_the_device
def test_the_benchmark_measures_the_device(tmp_path):
    words = ["--sizes", "64x48", "--devices", DEVICE, "--no-plain", "--runs", "1", "--train-steps", "2", "--batch", "2", "--patch", "32", "--workers", "0"]
    run_script(bench, *words, *NET, *DM[:-2], "--json", tmp_path / "bench.json")
    assert "64x48" in (tmp_path / "bench.json").read_text()


@on_the_device
def test_compiled_networks_give_the_same_image():
    device = pick_device(DEVICE)
    ldr, ev, _ = bracket(1, 32, 48)
    model, compiled = (speed_up(fresh("s2")).eval().to(device) for _ in range(2))
    for network in compiled.children():
        network.compile()
    with torch.no_grad():
        plain, other = (reconstruct(m, ldr.to(device), ev.to(device), generator=torch.Generator().manual_seed(0)) for m in (model, compiled))
    assert (plain - other).abs().max() < 1e-3
