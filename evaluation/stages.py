"""The stages of the inference (Fig. 2 (c)): where each ends in lfdiff.reconstruct, how long it takes, its parameters and its work.

    row                 what it is
    network input       padding and X_i
    condition net       D, Eq. 13
    one denoiser step   one of S
    all steps           the S steps, with the arithmetic of DDIM
    alignment, block i, output, and their sum DHRNet
    total               the whole pass
"""

import copy
import statistics
from collections import Counter

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from common import count_parameters
from lfdiff import reconstruct


# --- marks and time ---------------------------------------------------------------------------------------------------

def parts_of_dhrnet(model):
    """Returns {row: module} for all parts of DHRNet but the output."""
    return {"alignment": model.dhrnet.align, **{f"block {i}": block for i, block in enumerate(model.dhrnet.blocks, start=1)}}


def mark_stages(model, mark, inside=True):
    """Makes reconstruct(model, ...) call mark(name) at the end of each stage. inside: also of the stages within DHRNet (not if it is compiled)."""
    starts = [(model.condition, "network input"), (model.denoiser, "DDIM arithmetic"), (model.dhrnet, "DDIM arithmetic")]
    ends = [(part, name) for name, part in parts_of_dhrnet(model).items() if inside]
    ends += [(model.condition, "condition net"), (model.denoiser, "denoiser"), (model.dhrnet, "output")]
    for part, name in starts:                                       # a stage ends where the next begins
        part.register_forward_pre_hook(lambda *_, name=name: mark(name))
    for part, name in ends:
        part.register_forward_hook(lambda *_, name=name: mark(name))


def table(marks, S):
    """Converts what was measured between marks, {name: number}, to {row: number}. S: DDIM steps. Parts of DHRNet that were not marked get no row."""
    inside = {name: number for name, number in marks.items() if name == "alignment" or name.startswith("block ")}
    steps, dhrnet = marks["denoiser"] + marks["DDIM arithmetic"], marks["output"] + sum(inside.values())
    return {"network input": marks["network input"], "condition net": marks["condition net"], "one denoiser step": marks["denoiser"] / S,
            "all steps": steps, **inside, **({"output": marks["output"]} if inside else {}), "DHRNet": dhrnet,
            "total": marks["network input"] + marks["condition net"] + steps + dhrnet}


class Clock:
    """Measures the time between marks. On CUDA the marks are events in the stream, so that the GPU never waits for the clock."""

    def __init__(self, device):
        self.cuda, self.marks = device.type == "cuda", []
        timer()                                                     # waits until the device has finished its earlier work
        self.mark("start")

    def mark(self, name):
        """Ends the stage of this name."""
        moment = torch.cuda.Event(enable_timing=True) if self.cuda else timer()
        if self.cuda:
            moment.record()
        self.marks.append((name, moment))

    def milliseconds(self):
        """Returns {name: milliseconds}, summed over the stages of that name."""
        timer()
        spans = Counter()
        for (_, before), (name, after) in zip(self.marks, self.marks[1:]):
            spans[name] += before.elapsed_time(after) if self.cuda else 1000 * (after - before)
        return spans


# --- parameters and work ----------------------------------------------------------------------------------------------

def parameters(model):
    """Returns {row: number of parameters} for every row."""
    inside = {name: count_parameters(part) for name, part in parts_of_dhrnet(model).items()}
    denoiser, dhrnet = count_parameters(model.denoiser), count_parameters(model.dhrnet)
    return {"network input": 0, "condition net": count_parameters(model.condition), "one denoiser step": denoiser, "all steps": denoiser,
            **inside, "output": dhrnet - sum(inside.values()), "DHRNet": dhrnet, "total": count_parameters(model)}


def count_work(work):
    """Counts what work(mark) does between its marks. The tensors that it makes have no values and take no memory.

    Returns: {name: multiply-adds} and {name: Counter of convolutions}, for each name that it marks. A convolution is a tuple: shapes of input and
    weight, whether it has a bias, stride, padding, dilation, groups.
    """
    macs, convolutions, done, calls = Counter(), {}, 0, Counter()

    def count(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, out_shape):
        calls[tuple(x), tuple(weight), bias is not None, tuple(stride), tuple(padding), tuple(dilation), groups] += 1
        return conv_flop_count(x, weight, out_shape, transposed=transposed)

    def mark(name):
        nonlocal done
        total = counter.get_total_flops() // 2
        macs[name] += total - done
        convolutions[name] = convolutions.get(name, Counter()) + calls
        done = total
        calls.clear()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution: count})
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
        work(mark)
    return dict(macs), convolutions


def count_inference(model, width, height, S):
    """Runs count_work on reconstruct. model: Stage2 on the CPU in its plain form, whose operations the counter knows; S: DDIM steps."""
    marked = copy.deepcopy(model)                                   # the hooks stay in the copy

    def work(mark):
        mark_stages(marked, mark)
        reconstruct(marked, torch.empty(1, 3, 3, height, width), torch.zeros(1, 3), S)
    return count_work(work)


def bare_milliseconds(convolution, device, dtype):
    """Times one convolution (as in count_work) on random channels_last maps. Returns: the median of three runs after a warm-up."""
    shape, weight_shape, bias, *how = convolution
    x, weight = (torch.randn(size, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last) for size in (shape, weight_shape))
    bias, times = torch.randn(weight_shape[0], dtype=dtype, device=device) if bias else None, []
    for _ in range(1 + 3):
        start = timer()
        torch.conv2d(x, weight, bias, *how)
        times.append(1000 * (timer() - start))
    return statistics.median(times[1:])
