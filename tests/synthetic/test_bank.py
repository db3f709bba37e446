"""synthetic/bank.py: brackets made and aligned once."""

import numpy as np
import pytest
import torch

from data import Patches
from synthetic import bank
from synthetic.bank import BankConfig, fill, light_error, open_bank, open_brackets, prepared_bracket


def exact(hdr, ev):
    return torch.stack([(hdr * 2.0 ** stops).clamp(0, 1) ** (1 / 2.2) for stops in ev])


def test_the_error_of_the_light_is_measured_on_what_the_reference_exposes_well():
    hdr, ev = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.02, torch.tensor([0.0, 2.0, 4.0])
    median, rest = light_error(exact(hdr, ev), ev, hdr)
    assert abs(median) < 1e-5 and rest < 1e-5
    median, rest = light_error(exact(hdr, ev), ev, hdr / 2 ** 0.3)
    assert median == pytest.approx(0.3, abs=1e-4) and rest < 1e-4
    halves = hdr * torch.where(torch.arange(32) < 16, 1.0, 2 ** -0.4)           # half of the image is off by 0.4 stops; the median is the other half's 0
    assert light_error(exact(hdr, ev), ev, halves)[1] == pytest.approx(0.4, abs=1e-3)


def test_a_bank_with_a_damaged_or_foreign_file_is_refused_by_name(tmp_path):
    sample = {"ldr": torch.zeros(3, 3, 20, 20), "ev": torch.tensor([0.0, 2.0, 4.0]), "hdr": torch.zeros(3, 20, 20)}
    bank.write_record(tmp_path / "000000.npy", sample)
    assert len(open_bank(tmp_path)) == 1
    whole = (tmp_path / "000000.npy").read_bytes()
    (tmp_path / "000000.npy").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"000000\.npy: damaged"):
        open_bank(tmp_path)
    np.save(tmp_path / "000000.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"000000\.npy: holds no bracket of this project; delete it"):
        open_bank(tmp_path)


def test_where_the_reference_is_all_white_another_frame_tells_and_where_all_are_nothing_does():
    hdr, ev = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.4, torch.tensor([0.0, 2.0, 4.0])
    assert light_error(exact(hdr, ev), ev, hdr)[1] < 1e-5
    assert light_error(exact(hdr + 1, ev), ev, hdr) is None


def test_a_bank_is_a_function_of_its_seed_holds_prepared_samples_and_is_resumed(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    config = BankConfig(count=2, size=96, out=str(tmp_path), workers=0)
    for index in (1, 0):
        fill(index, config)
    scenes = open_bank(tmp_path)
    assert [file.name for file, _ in scenes] == ["000000.npy", "000001.npy"]
    sample = prepared_bracket(open_brackets(config), 1, 96)
    assert sample is not None                                                   # of this seed; else fill takes bracket 3
    record = np.load(scenes[1][0])
    assert np.abs(record["ldr"].transpose(2, 3, 0, 1) / 65535 - sample["ldr"].numpy()).max() < 1e-5
    assert record["hdr"].dtype == np.float16 and np.allclose(record["hdr"].transpose(2, 0, 1), sample["hdr"], rtol=1e-3, atol=1e-6)
    assert np.array_equal(scenes[1][1], sample["ev"])
    patches = Patches(scenes, 64, 32)
    assert len(patches) == 8 and patches[0]["hdr"].dtype == torch.float32 and patches[0]["ldr"].shape == (3, 3, 64, 64)


def test_a_bank_is_continued_with_the_settings_that_it_was_begun_with(tmp_path, monkeypatch, capsys):
    def made(*words):
        monkeypatch.setattr("sys.argv", ["bank", "--size", "16", "--out", str(tmp_path), "--workers", "0", *words])
        bank.main()
        return capsys.readouterr().out

    sample = {"ldr": torch.zeros(3, 3, 16, 16), "ev": torch.tensor([0.0, 1.0, 2.0]), "hdr": torch.zeros(3, 16, 16)}
    monkeypatch.setattr(bank, "prepared_bracket", lambda *_: sample)
    assert made("--count", "2").endswith(": 2 brackets, 2 of them new\n")
    assert made("--count", "3").endswith(": 3 brackets, 1 of them new\n") and made("--count", "3").endswith(": 3 brackets, 0 of them new\n")
    for words in (["--seed", "1"], ["--size", "32"]):
        with pytest.raises(ValueError, match="made with another --size, --seed, .*; choose another --out"):
            made("--count", "9", *words)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="choose another --out"):
        made("--count", "9")
    assert len(open_bank(tmp_path)) == 3


def test_a_bracket_that_the_front_end_fails_on_gives_way_to_one_that_no_count_reaches(tmp_path, monkeypatch):
    asked = []

    def prepared(brackets, index, size):
        asked.append(index)
        return None if len(asked) < 3 else {"ldr": torch.zeros(3, 3, 16, 16), "ev": torch.tensor([0.0, 1.0, 2.0]), "hdr": torch.zeros(3, 16, 16)}

    monkeypatch.setattr(bank, "prepared_bracket", prepared)
    fill(3, BankConfig(count=10, size=16, out=str(tmp_path)))
    assert asked == [3, 1_000_003, 2_000_003] and len(open_bank(tmp_path)) == 1


def test_a_folder_without_a_bank_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m synthetic.bank --out"):
        open_bank(tmp_path)
