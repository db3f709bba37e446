"""The settings for everything in training that departs from the paper, and how the settings of a run are printed."""

from dataclasses import asdict, dataclass

from brackets.prepare import UNPREPARED, PrepareConfig
from common import Decay, Weight, Whole


@dataclass
class BeyondConfig:
    """Beyond the paper: what departs from it. Everything here is off by default, so the run is the paper's."""
    align: bool = False             # prepare the frames in training and validation: registration, tone curve, optical flow [departs D6, D9, D10]
    correct: bool = False           # Eq. 10 corrects a merge of the frames, and is mixed with them at 17 places around each pixel [departs D8]
    cosine: Whole = 0               # steps over which the learning rate rises; a cosine then takes it to 0, in place of --decay [departs D12]; 0: off
    ema: Decay = 0.0                # decay of a running mean of the weights, which is then validated and saved; 0: no mean [departs D7]
    linear: Weight = 0.0            # weight of the L1 distance of linear radiance, added to Eq. 11 [departs D5]
    decibel: tuple[Weight, Weight] = (0.0, 0.0)  # weights of the decibels by which PSNR-mu and PSNR-L of a patch fall short of 50 [departs D5]

    @property
    def prepare(self):
        """How the frames of this run are prepared, a PrepareConfig."""
        return PrepareConfig() if self.align else UNPREPARED


def describe(config):
    """Formats the configuration as lines of name and value, printed at the start of each run."""
    words = lambda value: "  ".join(f"{key}={inner}" for key, inner in value.items()) if isinstance(value, dict) else value
    return "\n".join(f"  {name:<14} {words(value)}" for name, value in asdict(config).items())
