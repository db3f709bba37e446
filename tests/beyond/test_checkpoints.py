"""beyond/checkpoints.py: what is saved comes back; what is damaged, foreign or does not fit is refused before anything is built from it."""

import copy
import functools
import math
import operator
import os
import struct
import zipfile

import pytest
import torch

from beyond.checkpoints import check_fit, check_run, fill, fill_parts, load_checkpoint, save_checkpoint
from scripts import ROOT


def test_checkpoint_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "new" / "folder" / "last.pt"
    saved = {"model": {"w": torch.arange(3.0)}, "variant": "s1", "step": 7, "best": float("-inf"), "config": {"frms": (1, 2)}}
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("model")["w"], saved.pop("model")["w"]) and loaded == saved
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"last\.pt: no such checkpoint; train"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(FileNotFoundError, match="a folder, not a checkpoint; .*best.pt in it"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("steps", ["x", 3.0, ["a"], [float("nan")], [0.0], {"a": 1}, [], [True, True], [3.0, 2.0], [2.0, float("inf")], [2.0],
                                   [1, 1, 1], torch.ones(2)])
def test_exposure_steps_that_are_no_stops_are_refused(tmp_path, steps):
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": steps})
    with pytest.raises(ValueError, match=r"last\.pt: its exposure steps are .*, not a least and a greatest one in stops; name another file"):
        load_checkpoint(tmp_path / "last.pt")
    for right in (0.7, 3), (2.0, 2.0), None:
        save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": right})
        assert load_checkpoint(tmp_path / "last.pt")["steps"] == right


class RunsCode:
    """Its pickle makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "code"])
def test_unreadable_checkpoint_is_refused_in_one_line(tmp_path, kind):
    path, trap = tmp_path / "last.pt", tmp_path / "trap"
    save_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    if kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        torch.save({"model": RunsCode(str(trap))}, path)
    with pytest.raises(ValueError, match=r"last\.pt: not a readable checkpoint .*; it") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value) and not trap.exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"model": {}, "config": {}}, {"variant": "s2", "config": {}}])
def test_file_of_another_project_is_refused(tmp_path, content):
    save_checkpoint(tmp_path / "other.pt", content)
    with pytest.raises(ValueError, match=r"other\.pt: not a checkpoint of this project"):
        load_checkpoint(tmp_path / "other.pt")


def flipped(data, at):
    """Returns the same bytes with one bit flipped."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1:]


def test_a_flipped_bit_anywhere_in_the_shipped_weights_is_found(tmp_path):
    """PyTorch reads such a file without complaint. The test flips 40 places inside the tensors, and the first byte of each."""
    whole, path = (ROOT / "weights" / "lfdiff.pt").read_bytes(), tmp_path / "flipped.pt"
    with zipfile.ZipFile(ROOT / "weights" / "lfdiff.pt") as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    places = [entry.header_offset + 30 + sum(struct.unpack("<HH", whole[entry.header_offset + 26:entry.header_offset + 30])) for entry in tensors]
    largest = max(range(len(tensors)), key=lambda k: tensors[k].file_size)
    for at in [*places[::40], *(places[largest] + k * tensors[largest].file_size // 40 for k in range(40))]:
        path.write_bytes(flipped(whole, at))
        with pytest.raises(ValueError, match=r"flipped\.pt: .*; "):
            load_checkpoint(path)


def test_an_archive_that_would_unpack_to_more_than_its_size_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10 ** 7))
    with pytest.raises(ValueError, match=r"bomb\.pt: holds more than its size says; "):
        load_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("name", ["variant", "config", "model", "correct", "lpenet", "training", "step"])
def test_an_entry_of_the_wrong_type_is_named(name, tmp_path):
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": {}, "model": {}, name: None})
    with pytest.raises(ValueError, match=rf"bad\.pt: its {name} is of type NoneType, not .*; name another file"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize("group", ["config", "training"])
@pytest.mark.parametrize("value", [torch.zeros(2), (1, torch.zeros(2)), "itself"], ids=str)
def test_settings_are_plain_values(group, value, tmp_path):
    settings = {"dhrnet": {"channels": 8, "frms": (2, 2), "lr": 1e-4, "name": "", "sub": None}}
    save_checkpoint(tmp_path / "good.pt", {"variant": "s2", "config": {}, "model": {}, group: settings})
    load_checkpoint(tmp_path / "good.pt")
    settings["dhrnet"]["channels"] = settings if value == "itself" else value
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": {}, "model": {}, group: settings})
    with pytest.raises(ValueError, match=rf"bad\.pt: its {group} holds more than plain values; name another file"):
        load_checkpoint(tmp_path / "bad.pt")


def test_weights_whose_names_are_no_words_are_refused(tmp_path):
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": {}, "model": {0: torch.zeros(1)}})
    with pytest.raises(ValueError, match=r"bad\.pt: its weights are not tensors by name; name another file"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(("change", "words"), [
    ({"weight": None}, "its weights are not tensors"), ({"weight": torch.zeros(3, 2)}, r"weight has the shape \(3, 2\), the network's is \(2, 3\)"),
    ({"more": torch.zeros(1)}, "more is left over"), ({"bias": torch.tensor([0.0, float("nan")])}, "bias holds values that are not finite"),
    ({"weight": torch.zeros(1).expand(2, 3)}, "weight claims more values than the file holds"), (None, "bias is missing")])
def test_weights_that_do_not_fit_are_named_with_their_file_and_tensor(change, words):
    with torch.device("meta"):
        network = torch.nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    check_fit(network, state, "file.pt")
    with pytest.raises(ValueError, match=f"file.pt: {words}.*; "):
        check_fit(network, {"weight": state["weight"]} if change is None else {**state, **change}, "file.pt")


ODD = {"sparse": torch.Tensor.to_sparse, "sparse in rows": torch.Tensor.to_sparse_csr, "meta": lambda plain: plain.to("meta"), "bool": torch.Tensor.bool,
       "whole": torch.Tensor.long, "complex": torch.Tensor.cfloat, "quantised": lambda plain: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
       "of 8 bits": lambda plain: plain.to(torch.float8_e4m3fn), "nested": lambda plain: torch.nested.nested_tensor([*plain])}


@pytest.mark.filterwarnings("ignore::UserWarning")      # PyTorch warns about tensor types that are unfinished or deprecated
@pytest.mark.parametrize("kind", ODD)
def test_a_tensor_that_is_not_plain_floating_point_is_refused_by_name(kind, tmp_path):
    """torch.save writes all of these, and load_state_dict takes half of them without complaint."""
    state = {"weight": ODD[kind](torch.ones(2, 3)), "bias": torch.zeros(2)}
    save_checkpoint(tmp_path / "odd.pt", {"variant": "s2", "config": {}, "model": state})
    with pytest.raises(ValueError, match=r"file\.pt: weight is a tensor of torch\..*; a network's are plain floating point, use another file"):
        check_fit(torch.nn.Linear(3, 2, device="meta"), load_checkpoint(tmp_path / "odd.pt")["model"], "file.pt")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_every_usual_precision_are_taken(dtype):
    network = fill(torch.nn.Linear(3, 2), {"weight": torch.full((2, 3), 0.5, dtype=dtype), "bias": torch.zeros(2, dtype=dtype)}, "file.pt")
    assert network(torch.ones(1, 3)).tolist() == [[1.5, 1.5]]


def made_of(network):
    """Makes the parts of a run: network, Adam, and a scaler that is off, as it is without float16."""
    return {"trained": network, "optimiser": torch.optim.Adam(network.parameters(), lr=1e-3), "scaler": torch.amp.GradScaler("cpu", enabled=False)}


def run_of_two_steps():
    """Makes a checkpoint of a run after two steps, as training.py saves it."""
    parts = made_of(torch.nn.Linear(3, 2))
    for _ in range(2):
        parts["optimiser"].zero_grad()
        parts["trained"](torch.ones(1, 3)).square().sum().backward()
        parts["optimiser"].step()
    states = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    return {"training": {"training": {"lr": 1e-3}}, "step": 2, "best": -math.inf, "warmup_steps": 1, **states}


def resumed(saved):
    """Returns the parts of a fresh run that has loaded a checkpoint."""
    parts = made_of(torch.nn.Linear(3, 2))
    assert check_run(saved, parts, ["warmup_steps"], "last.pt") == {"lr": 1e-3}
    fill_parts(parts, saved, "last.pt")
    return parts


def test_a_run_takes_up_all_that_its_checkpoint_holds():
    saved = run_of_two_steps()
    parts = resumed(saved)
    again = parts["optimiser"].state_dict()
    assert all(torch.equal(again["state"][k][name], value) for k in (0, 1) for name, value in saved["optimiser"]["state"][k].items())
    assert torch.equal(parts["trained"].weight, saved["trained"]["weight"])


def test_rates_and_the_like_are_the_run_s_own_whatever_a_checkpoint_or_another_version_of_pytorch_says_of_them():
    saved, fresh = run_of_two_steps(), made_of(torch.nn.Linear(3, 2))["optimiser"].state_dict()["param_groups"]
    saved["optimiser"]["param_groups"] = [{"lr": 5.0, "betas": "x", "of a later version": 1}]
    assert resumed(saved)["optimiser"].state_dict()["param_groups"] == fresh


ODD_VALUES = {
    "step": [-5, 10 ** 12, True, 2.0, "x", None], "warmup_steps": [-1, True, 0.5, None],
    "best": ["x", torch.zeros(9, 9), None, [1], math.nan, math.inf, 10 ** 400, True],
    "trained": [{}, None, [], "x", {"weight": torch.zeros(2, 3)}],
    "optimiser": [{}, None, 1, {"param_groups": 3}],
    "optimiser/state": [{}, None, {0: {}}, {7: {}}, {"x": {"a": 1}}, {-1: {}}],
    "optimiser/state/0": [{}, 5],
    "optimiser/state/0/step": [2, torch.tensor(-2.0), torch.ones(1), None],
    "optimiser/state/0/exp_avg": [torch.tensor(0.0), torch.zeros(3, 2), torch.zeros(2, 3).cfloat(), torch.zeros(2, 3).int(), torch.zeros(1).expand(2, 3),
                                  torch.full((2, 3), math.nan), torch.zeros(2, 3, device="meta"), torch.zeros(2, 3).to_sparse(), None],
    "optimiser/state/0/exp_avg_sq": [torch.full((2, 3), -1.0), torch.zeros(7)]}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("place", ODD_VALUES)
def test_an_odd_value_anywhere_in_a_run_is_one_line_with_the_file_and_a_cure(place):
    *above, name = [int(word) if word == "0" else word for word in place.split("/")]
    for value in ODD_VALUES[place]:
        saved = run_of_two_steps()
        functools.reduce(operator.getitem, above, saved)[name] = value
        with pytest.raises(ValueError, match=r"^last\.pt: .*; .+$"):
            resumed(saved)
            pytest.fail(f"{place} may be {value!r}")


def test_a_run_of_float16_takes_up_its_scaler_and_may_have_skipped_its_first_steps():
    saved, fresh = {**run_of_two_steps(), "scaler": torch.amp.GradScaler("cpu").state_dict()}, made_of(torch.nn.Linear(3, 2))
    saved["scaler"]["scale"], saved["optimiser"]["state"] = 256.0, {}
    parts = {**fresh, "scaler": torch.amp.GradScaler("cpu")}
    fill_parts(parts, saved, "last.pt")
    assert parts["scaler"].state_dict()["scale"] == 256
    for scale in "x", 0.0, math.nan, math.inf, 1:
        saved["scaler"]["scale"] = scale
        with pytest.raises(ValueError, match="last.pt: its scaler does not fit .*its scale is .*; start from it with --init"):
            fill_parts(parts, saved, "last.pt")
