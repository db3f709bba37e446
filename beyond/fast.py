"""Row strips: how inference on the CPU keeps its working memory in the processor's cache. No part of the paper.

At 1000x1500 one feature map of the paper's network has 180 MB in bfloat16. A convolution writes it to main memory, the ReLU
reads and writes it again, the next convolution reads it: the arithmetic waits. But convolutions are local: rows r .. r + n of
their result need rows r - halo .. r + n + halo of their input and no others. So `by_strips` runs a local function on some rows
at a time, whose intermediate maps stay in the cache, and only the result goes to main memory.

The result is that of the whole map: the rows that saw the edge of a strip instead of the image's own are cut off. Training,
GPUs and batches run the function once, on the whole map.
"""

import ctypes
import sys

import torch

STRIP_BYTES = 32 * 2 ** 20       # of the widest map inside a strip


def strip_rows(*maps, channels=None):
    """Rows of a strip of (B, ..., H, W) maps, counted in the lowest; all rows where strips do not pay. channels: see by_strips."""
    height, x = min(x.shape[-2] for x in maps), maps[0]
    if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) > 1:
        return height
    bytes_each = 2 if torch.is_autocast_enabled("cpu") else x.element_size()
    row_bytes = x.shape[-2] // height * x.shape[-1] * (channels or x.shape[-3]) * bytes_each
    return min(max(int(STRIP_BYTES // row_bytes), 1), height)


def by_strips(f, *maps, halo, shrink=1, plus=None, channels=None, out=None):
    """Evaluates a local function of feature maps strip by strip. Returns: f(*maps), or f(*maps) + plus.

    f: function of maps (1, ..., H_i, W_i) to one map (1, C, H, W), whose row r depends on rows r - halo .. r + halo of the inputs
        and, at the border of the image, on nothing that zero padding or repetition would not give. Heights are multiples of the
        lowest map's, and halo counts its rows.
    plus: a map like the result: the skip connection around f.
    shrink: how much lower than the lowest map the result is; halo counts the result's rows then.
    channels: of the widest map that f makes on the way, where that is not the first map's.
    out: a map like the result that takes it. It may be `plus`, or an input of which f reads row r alone for row r. Where no strips are
        needed, and so in training, it keeps its values.
    """
    height, rows = min(x.shape[-2] for x in maps) // shrink, max(strip_rows(*maps, channels=channels) // shrink, 1)
    if rows >= height:
        return f(*maps) if plus is None else plus + f(*maps)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(top - halo, 0), min(bottom + halo, height)
        strip = f(*(x.narrow(-2, above * (x.shape[-2] // height), (below - above) * (x.shape[-2] // height)) for x in maps))
        scale = strip.shape[-2] // (below - above)
        first, count = top * scale, (bottom - top) * scale
        strip = strip.narrow(-2, (top - above) * scale, count)
        if out is None:
            out = torch.empty(1, strip.shape[1], height * scale, strip.shape[3], dtype=strip.dtype, memory_format=torch.channels_last)
        if plus is None:
            out.narrow(-2, first, count).copy_(strip)
        else:
            torch.add(plus.narrow(-2, first, count), strip, out=out.narrow(-2, first, count))
    return out


def _libc(name):
    """A function of the C library, where it is glibc; else None."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def keep_memory(largest=2 ** 30):
    """Asks the C library to keep freed memory for the next map instead of giving it back, where it is glibc; else does nothing.

    Fresh pages cost as much as several passes over them. largest: bytes; larger blocks go back at once, and leave no holes.
    """
    mallopt = _libc("mallopt")
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                 # malloc.h
        mallopt(M_MMAP_THRESHOLD, largest)
        mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)


def give_back_memory():
    """Returns what was kept to the system, where the C library is glibc; else does nothing. For when maps of other sizes follow."""
    malloc_trim = _libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)
