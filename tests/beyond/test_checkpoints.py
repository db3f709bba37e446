"""beyond/checkpoints.py: what is saved comes back; what is damaged, foreign or does not fit is refused before anything is built from it."""

import math
import os
import struct
import zipfile

import pytest
import torch

from beyond.checkpoints import check_fit, fill, fill_state, load_checkpoint, save_checkpoint
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


@pytest.mark.parametrize("steps", ["x", 3.0, ["a"], [float("nan")], [0.0], {"a": 1}, [], [True, True], [3.0, 2.0], [2.0, float("inf")], torch.ones(2)])
def test_exposure_steps_that_are_no_stops_are_refused(tmp_path, steps):
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": steps})
    with pytest.raises(ValueError, match=r"last\.pt: its exposure steps are .*, not stops that rise; name another file"):
        load_checkpoint(tmp_path / "last.pt")
    for right in (0.7, 3), (2.0, 2.0), (1.5,), None:
        save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": right})
        assert load_checkpoint(tmp_path / "last.pt")["steps"] == right


class RunsCode:
    """A pickle that makes a folder when it is read."""

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
    """The same bytes with one bit turned."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1:]


def test_a_flipped_bit_anywhere_in_the_shipped_weights_is_found(tmp_path):
    """PyTorch reads such a file without a word. 40 places inside the tensors, and the first byte of each."""
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


@pytest.mark.parametrize("name", ["variant", "config", "model", "blend", "correct", "lpenet", "training", "step"])
def test_an_entry_of_the_wrong_type_is_named(name, tmp_path):
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": {}, "model": {}, name: None})
    with pytest.raises(ValueError, match=rf"bad\.pt: its {name} is of type NoneType, not .*; name another file"):
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


@pytest.mark.filterwarnings("ignore")       # PyTorch warns of kinds of tensors that are not finished or about to go
@pytest.mark.parametrize("kind", ODD)
def test_a_tensor_that_is_not_plain_floating_point_is_refused_by_name(kind, tmp_path):
    """torch.save writes all of these, and load_state_dict takes half of them without a word."""
    state = {"weight": ODD[kind](torch.ones(2, 3)), "bias": torch.zeros(2)}
    save_checkpoint(tmp_path / "odd.pt", {"variant": "s2", "config": {}, "model": state})
    with pytest.raises(ValueError, match=r"file\.pt: weight is a tensor of torch\..*; a network's are plain floating point, use another file"):
        check_fit(torch.nn.Linear(3, 2, device="meta"), load_checkpoint(tmp_path / "odd.pt")["model"], "file.pt")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_every_usual_precision_are_taken(dtype):
    network = fill(torch.nn.Linear(3, 2), {"weight": torch.full((2, 3), 0.5, dtype=dtype), "bias": torch.zeros(2, dtype=dtype)}, "file.pt")
    assert network(torch.ones(1, 3)).tolist() == [[1.5, 1.5]]


def stepped():
    """An optimiser that has made one step, and its network."""
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return optimiser


@pytest.mark.parametrize("change", [lambda value: value[:1], lambda value: value.to_sparse(), lambda value: value.to("meta"), lambda value: value * math.nan,
                                    lambda value: None, lambda value: torch.zeros(1).expand(value.shape)],
                         ids=["shape", "sparse", "meta", "nan", "none", "more than there is"])
def test_what_an_optimiser_keeps_is_of_its_parameters_shapes_and_finite(change):
    """Else the first step would fail, or make the weights nan."""
    fill_state(stepped(), stepped().state_dict(), "file.pt")
    state = stepped().state_dict()
    state["state"][0]["exp_avg"] = change(state["state"][0]["exp_avg"])
    with pytest.raises(ValueError, match="file.pt: its state of Adam does not fit .*; start from it with --init"):
        fill_state(stepped(), state, "file.pt")
