"""beyond/weights.py: files of weights, and VGG19's."""

from dataclasses import asdict

import pytest
import torch

from beyond.checkpoints import save_checkpoint
from beyond.weights import load_weights, save_weights
from brackets.prepare import UNPREPARED, PrepareConfig
from lfdiff import reconstruct
from slow import SMALL, VARIANTS, bracket, fresh, normal

torch.set_num_threads(1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_come_back_rounded_to_float16(tmp_path, variant):
    model = fresh(variant).train()
    for name, buffer in model.named_buffers():
        buffer.copy_(normal(*buffer.shape, seed=len(name)).abs() + 0.5)
    save_weights(tmp_path / "weights.pt", model, PrepareConfig(flow=False), {"step": 3}, steps=(2.0, 3.0))
    loaded = load_weights(tmp_path / "weights.pt")
    assert loaded.variant == variant and loaded.config == SMALL and not loaded.training
    assert loaded.prepare == PrepareConfig(flow=False) and loaded.steps == (2, 3)
    state = loaded.state_dict()
    assert set(state) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], value.half().float()), name
    assert (tmp_path / "weights.pt").stat().st_size < 2.6 * sum(p.numel() for p in model.parameters()) + 80_000       # 2 bytes per weight
    if variant != "s1":
        ldr, ev, _ = bracket(1, 16, 16)
        a, b = (reconstruct(m, ldr, ev, generator=torch.Generator().manual_seed(0)) for m in (model, loaded))
        assert (a - b).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["text", "truncated", "no model", "no variant", "no config", "unknown variant", "other config", "other shapes",
                                  "missing weight"])
def test_foreign_weight_file_is_refused_in_one_line(tmp_path, kind):
    path, model = tmp_path / "weights.pt", fresh("s2")
    good = {"variant": "s2", "config": asdict(SMALL), "model": model.state_dict(), "notes": {}}
    if kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "truncated":
        save_checkpoint(path, good)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "other shapes":
        save_checkpoint(path, {**good, "model": {**model.state_dict(), "dhrnet.out.bias": torch.zeros(4)}})
    elif kind == "missing weight":
        save_checkpoint(path, {**good, "model": {name: value for name, value in model.state_dict().items() if name != "dhrnet.out.bias"}})
    elif kind == "unknown variant":
        save_checkpoint(path, {**good, "variant": "s9"})
    elif kind == "other config":
        save_checkpoint(path, {**good, "config": {"channels": 12}})
    else:
        save_checkpoint(path, {name: value for name, value in good.items() if name != kind.removeprefix("no ")})
    with pytest.raises(ValueError) as error:
        load_weights(path)
    assert "\n" not in str(error.value) and len(str(error.value)) > 20


@pytest.mark.parametrize(("part", "name", "value"), [
    ("dhrnet", "channels", "x"), ("dhrnet", "heads", 0), ("dhrnet", "channels", -4), ("dhrnet", "channels", 1_000_000), ("dhrnet", "frms", (10 ** 9,)),
    ("dhrnet", "heads", True), ("denoiser", "unet_width", 12), ("diffusion", "T", 10 ** 9), ("diffusion", "beta_1", float("nan")), ("lpenet", None, 3),
    ("dhrnet", None, "x"), ("dhrnet", None, None), ("dhrnet", None, 3), ("denoiser", None, None), ("diffusion", None, "x")])
def test_an_architecture_that_cannot_be_is_refused_before_anything_is_built(part, name, value, tmp_path):
    """A network of a million channels would take 36 TB."""
    config = asdict(SMALL)
    config[part] = value if name is None else {**config[part], name: value}
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": config, "model": fresh("s2").state_dict()})
    with pytest.raises(ValueError, match=r"bad\.pt: ") as error:
        load_weights(tmp_path / "bad.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("part", "setting", "words"), [
    ("prepare", {"register": 1}, r"\(register 1: must be of type bool\)"), ("denoiser", {"unet_multipliers": ()}, r"\(unet-multipliers .*; if left out.*\)"),
    ("dhrnet", {"heads": 5}, r"\(heads 5, expansion .*\)"), ("dhrnet", {"pool_pim": 2}, r"\(unshuffle 4, pool-pim 2, .*\)")])
def test_a_setting_of_a_file_is_not_reported_as_a_flag_of_the_command_line(part, setting, words, tmp_path):
    """Nobody gave such a flag, so leaving it out is no cure."""
    config = asdict(SMALL)
    made_of = {"prepare": setting} if part == "prepare" else {"config": {**config, part: {**config[part], **setting}}}
    save_checkpoint(tmp_path / "odd.pt", {"variant": "s2", "config": config, "model": fresh("s2").state_dict(), **made_of})
    with pytest.raises(ValueError, match=rf"^\S*odd\.pt: its settings do not fit {words}; name another file$") as error:
        load_weights(tmp_path / "odd.pt")
    assert "--" not in str(error.value)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_deviation_of_the_prior_that_is_not_positive_is_refused(value, tmp_path):
    """Stage2.standardise divides by it."""
    model = fresh("s2")
    model.z_std[0, 1] = value
    save_weights(tmp_path / "weights.pt", model, UNPREPARED, {})
    with pytest.raises(ValueError, match=rf"weights\.pt: z_std is \[1\.0, {value}, 1\.0\], and a deviation is positive; use another file"):
        load_weights(tmp_path / "weights.pt")


def test_weights_that_are_not_finite_are_named_and_not_blamed_on_the_precision(tmp_path):
    model = fresh("s2")
    model.dhrnet.out.bias.data[1] = float("nan")
    save_weights(tmp_path / "weights.pt", model, UNPREPARED, {})
    with pytest.raises(ValueError, match=r"weights\.pt: dhrnet\.out\.bias holds values that are not finite; use"):
        load_weights(tmp_path / "weights.pt")


def test_a_file_that_names_no_preparation_and_no_steps_means_none(tmp_path):
    save_weights(tmp_path / "weights.pt", fresh("s2"), UNPREPARED, {})
    checkpoint = torch.load(tmp_path / "weights.pt", weights_only=True)
    del checkpoint["prepare"], checkpoint["correct"], checkpoint["steps"]
    save_checkpoint(tmp_path / "old.pt", checkpoint)
    old = load_weights(tmp_path / "old.pt")
    assert old.prepare == UNPREPARED and old.steps is None


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights\.pt: no such"):
        load_weights(tmp_path / "weights.pt")
