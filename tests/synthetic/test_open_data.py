"""training.open_data: which brackets training sees, which scenes validate it, and how both are prepared."""

import torch

import training
from beyond.config import BeyondConfig
from brackets.prepare import UNPREPARED, PrepareConfig
from synthetic.dataset import AS_TAKEN, SyntheticConfig, validation_set
from training import TrainingConfig, open_data


def test_the_synthetic_set_trains_and_validates_on_files_of_its_own(folders):
    config = TrainingConfig(data="synthetic", patch=32, val_size=32, val_scenes=3, **{name: str(path) for name, path in folders.items()})
    train, val = open_data(config, BeyondConfig())
    assert train.split == "train" and len(train.shares) == 3
    assert all(torch.equal(a["ldr"], b["ldr"]) for a, b in zip(val, validation_set(32, 3, **folders), strict=True))


def test_training_brackets_are_aligned_when_told_to():
    configs = [open_data(TrainingConfig(data="synthetic", patch=32, val_size=32, val_scenes=1), BeyondConfig(align=align))[0].config for align in (True, False)]
    assert configs == [SyntheticConfig(), SyntheticConfig(**AS_TAKEN)] and configs[0].registered > 0.5 and configs[0].followed > 0.5


def test_frames_of_a_data_set_are_aligned_when_told_to(monkeypatch):
    settings = []
    monkeypatch.setattr(training, "find_scenes", lambda *_: [])
    monkeypatch.setattr(training, "cache_scenes", lambda folders, cache, layout, config, workers: settings.append(config))
    monkeypatch.setattr(training, "Patches", lambda *_: None)
    for align in (True, False):
        open_data(TrainingConfig(data="kalantari", val_on="test"), BeyondConfig(align=align))
    assert settings == [PrepareConfig(), UNPREPARED]
