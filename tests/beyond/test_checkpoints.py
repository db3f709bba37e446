"""beyond/checkpoints.py: what is saved comes back; what is damaged, foreign or does not fit is refused before anything is built from it."""

import os
import struct
import zipfile

import pytest
import torch

from beyond.checkpoints import check_fit, load_checkpoint, save_checkpoint
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


@pytest.mark.parametrize("steps", ["x", 3.0, ["a"], [float("nan")], [0.0], {"a": 1}])
def test_exposure_steps_that_are_no_stops_are_refused(tmp_path, steps):
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": steps})
    with pytest.raises(ValueError, match=r"last\.pt: its exposure steps are .*, not stops; name another file"):
        load_checkpoint(tmp_path / "last.pt")
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "variant": "s2", "config": {}, "steps": (0.7, 3)})
    assert load_checkpoint(tmp_path / "last.pt")["steps"] == (0.7, 3)


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


@pytest.mark.parametrize("name", ["variant", "config", "model"])
def test_an_entry_of_the_wrong_type_is_named(name, tmp_path):
    save_checkpoint(tmp_path / "bad.pt", {"variant": "s2", "config": {}, "model": {}, name: None})
    with pytest.raises(ValueError, match=rf"bad\.pt: its {name} is of type NoneType, not"):
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
