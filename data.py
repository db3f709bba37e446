"""The mu-law T of Eq. 6, the network's input X_i (Sec. 4.1), PSNR, and training patches.

Symbols, paper -> code:  L_i -> ldr[:, i - 1]   H_i = L_i^2.2 / t_i -> the last three channels of network_input
                         t_i -> 2 ** (ev_i - min ev)   H -> hdr   T(H) -> hdr_mu   mu -> MU
The paper writes H for both the truth and the gamma-corrected inputs; here `hdr` is always the truth.

A sample is a dict of float32 tensors:
    ldr  (3, 3, H, W)  gamma-coded frames in [0, 1]: frame, then RGB channel; exposure rises, and ldr[1] is the reference, L_2
    ev   (3,)          exposures in stops, the shortest is 0
    hdr  (3, H, W)     linear radiance in [0, 1]; 1 is where the shortest exposure clips
A frame without noise is L_i = clip(H * 2**ev_i, 0, 1) ** (1 / 2.2). Samples come from brackets/ (files) or synthetic/ (simulated).
"""

import math

import numpy as np
import torch
from torch.utils.data import Dataset

MU = 5000.0  # compression of the mu-law [paper: Sec. 4.1]
GAMMA = 2.2  # camera curve L = H ** (1 / GAMMA) [paper: Sec. 4.1]


# --- radiance ---------------------------------------------------------------------------------------------------------

def T(hdr):
    """Compresses radiance by the mu-law, the domain of the losses and of PSNR-mu.

    hdr: any shape, linear radiance in [0, 1], any float dtype.
    Returns: the same shape in [0, 1], always float32: just below 1, the values of bfloat16 are 0.004 apart, which would limit
        PSNR-mu to 58 dB.
    Source: Eq. 6.
    """
    # Eq. 6:  T(x) = log(1 + mu*x) / log(1 + mu)
    return torch.log1p(MU * hdr.float()) / math.log1p(MU)


def T_inverse(hdr_mu):
    """Undoes T: linear radiance, float32, of the same shape as hdr_mu."""
    return torch.expm1(hdr_mu.float() * math.log1p(MU)) / MU


def psnr(hdr_hat, hdr):
    """PSNR-L of linear images in [0, 1]; PSNR-mu when given T(.) of them. The peak is 1; nothing is clipped or rounded.

    hdr_hat, hdr: any shape, the same for both. Returns: decibels, float (inf for equal images).
    """
    mse = (hdr_hat.cpu().double() - hdr.cpu().double()).square().mean()        # on the CPU: MPS has no float64
    return float(-10 * torch.log10(mse))


def to_radiance(ldr, ev):
    """Gamma-corrects a bracket: H_i = L_i^2.2 / t_i, in units of the shortest exposure.

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1]. ev: (B, 3) exposures in stops, any offset.
    Returns: (B, 3, 3, H, W) linear radiance in [0, 1], float32.
    Source: Sec. 4.1.
    """
    t = 2.0 ** (ev.float() - ev.float().amin(dim=1, keepdim=True))  # (B, 3), the shortest is 1
    return ldr.float() ** GAMMA / t[:, :, None, None, None]


def network_input(ldr, ev):
    """Puts each frame beside its gamma-corrected version: X_i = [L_i, H_i].

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1]. ev: (B, 3) exposures in stops, any offset.
    Returns: (B, 3, 6, H, W), float32: frame, then R G B of L_i, then R G B of H_i.
    Source: Sec. 4.1.
    """
    return torch.cat([ldr.float(), to_radiance(ldr, ev)], dim=2)


# --- training patches -------------------------------------------------------------------------------------------------

class Patches(Dataset):
    """All patches of a list of scenes, reshuffled each epoch, flipped and rotated: 22,792 in Kalantari's 74 training scenes.

    scenes: what brackets.prepare.cache_scenes or synthetic.bank.open_bank returns, a list of (path, ev): a .npy file of (H, W) records
        "ldr" (3, 3) uint16 and "hdr" (3,) float32, or float16 in a bank, and the exposures (3,). patch, stride: pixels [paper: Sec. 5.1].
        augment: apply one of the 8 flips and quarter turns.
    Sample i depends only on (seed, i), so workers, ranks and resumed runs agree. i may exceed the length: i // len is
    the epoch, and each epoch holds every patch once. For the same reason, a plain `for sample in patches` would never end.
    Returns (by index): {"ldr": (3, 3, patch, patch), "ev": (3,), "hdr": (3, patch, patch)}, float32 tensors.
    Raises: ValueError if there is no scene, or one is smaller than a patch.
    """

    def __init__(self, scenes, patch=128, stride=64, seed=0, augment=True):
        if not scenes:
            raise ValueError("Patches: the list of scenes is empty; see brackets.scenes.find_scenes")
        self.patch, self.stride, self.seed, self.augment = patch, stride, seed, augment
        self.files, self.ev = zip(*scenes)
        self._order, self.grids = (-1, None), []
        for k, file in enumerate(self.files):
            height, width = self._pixels(k).shape
            if min(height, width) < patch:
                raise ValueError(f"{file}: {width}x{height} pixels; too small for patches of {patch}, choose a smaller --patch")
            self.grids.append(((height - patch) // stride + 1, (width - patch) // stride + 1))     # patches down and across; a border may be left out
        self.first = np.cumsum([0] + [rows * columns for rows, columns in self.grids])  # index of each scene's first patch

    @property
    def steps(self):
        """The smallest and largest exposure step, in stops, to a tenth of a stop, without the outermost 1 % at each end."""
        return tuple(np.quantile(np.diff(self.ev), (0.01, 0.99)).round(1).clip(min=0.1).tolist())

    def __len__(self):
        return int(self.first[-1])

    def _pixels(self, k):
        return np.load(self.files[k], mmap_mode="r")    # mapped anew each time: a bank has more files than a process may keep open

    def _shuffled(self, epoch):
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(len(self))
        return self._order[1]

    def __getitem__(self, i):
        if i < 0:
            raise IndexError(f"patch {i}: indices start at 0")
        n = self._shuffled(i // len(self))[i % len(self)]
        k = int(np.searchsorted(self.first, n, side="right")) - 1
        row, column = divmod(int(n - self.first[k]), self.grids[k][1])
        y, x = row * self.stride, column * self.stride
        pixels = self._pixels(k)[y:y + self.patch, x:x + self.patch]  # (h, w) records
        ldr, hdr = (pixels["ldr"].astype(np.float32) / np.float32(65535)).transpose(2, 3, 0, 1), pixels["hdr"].astype(np.float32).transpose(2, 0, 1)
        if self.augment:
            turn = int(np.random.default_rng([self.seed, i]).integers(8))
            ldr, hdr = (np.rot90(a, turn % 4, axes=(-2, -1)) for a in (ldr, hdr))
            ldr, hdr = (a[..., ::-1] if turn >= 4 else a for a in (ldr, hdr))
        return {"ldr": torch.from_numpy(np.array(ldr, order="C")), "ev": torch.from_numpy(np.array(self.ev[k])),
                "hdr": torch.from_numpy(np.array(hdr, order="C"))}
