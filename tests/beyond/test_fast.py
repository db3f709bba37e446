"""beyond/fast.py: every fast form gives what the paper's file gives, whole and strip by strip."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as nnf

from align import AlignmentModule
from beyond import fast
from beyond.correct import CorrectingDHRNet, add_correction
from beyond.fast import FAST, FastFRM, by_strips, cosines, mix_channels, speed_up, strip_rows
from data import network_input
from denoiser import TimeResidualBlock
from dhrnet import FRM, MDTA, PIM, ChannelAttention, CrossAttention, DHRNet, DHRNetConfig, SelfAttention
from lpenet import ConditionNet, LPENetConfig, ResidualBlock
from slow import VARIANTS, bracket, fresh

ROOT = Path(__file__).parent.parent.parent
SMALL = DHRNetConfig(channels=12, heads=3, frms=(1,), high_blocks=2)
CLOSE = 2e-5        # float32 sums in another order


@pytest.fixture
def narrow_strips(monkeypatch):
    """Makes strips of a few rows, so that a small map has many of them, and a last one of another height."""
    monkeypatch.setattr(fast, "STRIP_BYTES", 10_000)


def random_map(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correcting_dhrnet():
    model = fresh("s2")
    model.dhrnet = DHRNet(SMALL)
    return add_correction(model).dhrnet


X, z = random_map(1, 3, 6, 52, 44).abs(), random_map(1, 3, 13, 11, seed=1)
CASES = {   # one for each class of FAST: module, its inputs at a size that strips do not divide
    ResidualBlock: (lambda: ResidualBlock(12), (random_map(1, 12, 53, 39),)),
    AlignmentModule: (lambda: AlignmentModule(6, 12), (random_map(1, 3, 6, 53, 39),)),
    ConditionNet: (lambda: ConditionNet(LPENetConfig(prior_width=8, condition_width=8)), (random_map(1, 3, 6, 84, 36),)),
    TimeResidualBlock: (lambda: TimeResidualBlock(16, 24, 32), (random_map(1, 16, 13, 7), random_map(1, 32))),
    MDTA: (lambda: MDTA(12, 3), (random_map(1, 12, 53, 39),)),
    SelfAttention: (lambda: SelfAttention(12, 3, 2.66), (random_map(1, 12, 53, 39),)),
    CrossAttention: (lambda: CrossAttention(12, 3, 2.66), (random_map(1, 12, 53, 39), random_map(1, 3, 53, 39, seed=1))),
    ChannelAttention: (lambda: ChannelAttention(12), (random_map(1, 12, 53, 39),)),
    FRM: (lambda: FRM(SMALL), (random_map(1, 12, 54, 38),)),
    PIM: (lambda: PIM(SMALL, 3), (random_map(1, 12, 52, 44), z)),
    DHRNet: (lambda: DHRNet(SMALL), (X, z)),
    CorrectingDHRNet: (correcting_dhrnet, (X.clamp(max=1), z)),
}


def pair_of(kind):
    """Makes a plain module with random parameters, none of them 0 or 1, the same module in its fast form, and inputs."""
    torch.manual_seed(0)
    make, inputs = CASES[kind]
    plain = make().eval()
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.1 if isinstance(plain, DHRNet) else 0.3)       # a sigmoid of large features hides their differences
    if kind in (CrossAttention, PIM, DHRNet, CorrectingDHRNet):        # a softmax over cosines, divided by a gamma far from 0
        for module in plain.modules():
            if isinstance(module, CrossAttention):
                module.gamma.data.fill_(0.7)
    return plain, speed_up(copy.deepcopy(plain)), inputs


def test_every_fast_form_is_compared():
    assert set(CASES) == set(FAST)


@torch.no_grad()
@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("strip_bytes", [10_000, 2 ** 40], ids=["strips", "whole"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_fast_form_gives_what_the_paper_s_file_gives(monkeypatch, kind, strip_bytes, dtype):
    monkeypatch.setattr(fast, "STRIP_BYTES", strip_bytes)
    plain, quick, inputs = pair_of(kind)
    assert type(quick) is FAST[kind] and type(plain) is kind
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        expected, result = plain(*inputs).float(), quick(*(x.clone() for x in inputs)).float()
    difference = (result - expected).abs()
    if dtype is torch.float32:
        assert difference.max() < CLOSE * expected.abs().max()
    else:       # each of a dozen roundings is off by 2^-9; the mean error says whether more than rounding differs
        assert difference.mean() < 0.02 * expected.abs().mean() and difference.max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_fast_form_has_the_gradients_of_the_plain_one(kind):
    plain, quick, inputs = pair_of(kind)
    for module in (plain, quick):
        output = module(*inputs)
        (output * random_map(*output.shape, seed=2)).sum().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), quick.named_parameters()):
        assert (a.grad - b.grad).abs().max() < 1e-3 * a.grad.abs().max() + 1e-5, name


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_was_sped_up_keeps_its_weights_and_its_results(narrow_strips, variant):
    plain, (ldr, ev, _) = fresh(variant), bracket(1, 64, 48)
    quick, X = speed_up(copy.deepcopy(plain)), network_input(ldr, ev)
    assert list(quick.state_dict()) == list(plain.state_dict()) and speed_up(quick) is quick
    left = {type(module) for module in quick.modules()} & set(FAST)
    assert not left
    for part in ("dhrnet", "condition"):
        if hasattr(plain, part):
            inputs = (X, random_map(1, 3, 16, 12)) if part == "dhrnet" and variant != "baseline" else (X,)
            expected, result = getattr(plain, part)(*inputs), getattr(quick, part)(*inputs)
            assert (result - expected).abs().max() < CLOSE * expected.abs().max()


@torch.no_grad()
def test_the_condition_of_frames_is_that_of_their_network_input(narrow_strips):
    condition, (ldr, ev, _) = speed_up(ConditionNet(LPENetConfig(prior_width=8, condition_width=8))), bracket(1, 160, 32)
    assert strip_rows(ldr) < 80
    expected = condition(network_input(ldr, ev))
    assert (condition.from_frames(ldr, ev) - expected).abs().max() < CLOSE * expected.abs().max()


# --- strips -----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_a_halo_too_small_would_show(narrow_strips):
    x, w = random_map(1, 12, 52, 40), random_map(12, 12, 5, 5, seed=1)
    whole = nnf.conv2d(x, w, padding=2)
    assert torch.allclose(by_strips(lambda x: nnf.conv2d(x, w, padding=2), x, halo=2), whole, atol=1e-3)
    assert (by_strips(lambda x: nnf.conv2d(x, w, padding=2), x, halo=1) - whole).abs().max() > 1


@torch.no_grad()
def test_a_map_may_take_the_result_where_its_halo_does_not_matter(narrow_strips):
    F, plus = random_map(1, 12, 52, 40), random_map(1, 12, 52, 40, seed=1)
    expected = 2 * F + plus
    result = by_strips(lambda F: 2 * F, F, halo=0, plus=plus, out=F)
    assert result.data_ptr() == F.data_ptr() and torch.equal(result, expected)


@torch.no_grad()
def test_inputs_survive_unless_they_are_given_away(narrow_strips):
    frm, F = speed_up(FRM(SMALL)), random_map(1, 12, 52, 40)
    before = F.clone()
    frm(F)
    assert torch.equal(F, before)


@pytest.mark.parametrize("case", ["gradients", "a batch", "a small map"])
def test_no_strips_where_they_do_not_pay(monkeypatch, case):
    monkeypatch.setattr(fast, "STRIP_BYTES", 2 ** 40 if case == "a small map" else 1)
    seen, x = [], random_map(2 if case == "a batch" else 1, 3, 8, 8)
    with torch.set_grad_enabled(case == "gradients"):
        by_strips(lambda x: seen.append(x.shape) or x, x, halo=1)
    assert seen == [x.shape]


@torch.no_grad()
def test_maps_of_several_heights_are_cut_alike(narrow_strips):
    low, high = random_map(1, 12, 26, 20), random_map(1, 12, 104, 80, seed=1)
    result = by_strips(lambda low, high: high + nnf.interpolate(low, scale_factor=4), low, high, halo=0)
    assert torch.equal(result, high + nnf.interpolate(low, scale_factor=4))
    pooled = by_strips(lambda high: nnf.avg_pool2d(high, 4), high, halo=0, shrink=4)
    assert torch.equal(pooled, nnf.avg_pool2d(high, 4))


# --- exact forms of the fast paths -----------------------------------------------------------------------------------

@torch.no_grad()
@pytest.mark.parametrize("strip_bytes", [10_000, 2 ** 40])
def test_cosines_are_the_products_of_unit_vectors(monkeypatch, strip_bytes):
    monkeypatch.setattr(fast, "STRIP_BYTES", strip_bytes)
    Q, K = random_map(1, 12, 52, 40), random_map(1, 6, 52, 40, seed=1) + 0.5
    unit_Q, unit_K = (nnf.normalize(x.flatten(2).unflatten(1, (3, -1)), dim=-1) for x in (Q, K))
    assert (cosines(torch.cat([Q, K], dim=1), 12, heads=3) - unit_Q @ unit_K.transpose(2, 3)).abs().max() < 1e-6


def test_the_cosine_of_an_empty_channel_is_zero():
    QK = torch.cat([torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)], dim=1)
    assert torch.equal(cosines(QK, 2), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("B", [1, 2])
def test_mixing_channels_is_the_product_head_by_head(B):
    A, V = random_map(B, 3, 2, 4), random_map(B, 12, 5, 7, seed=1)
    expected = torch.einsum("bhcd,bhdp->bhcp", A, V.reshape(B, 3, 4, 35)).reshape(B, 6, 5, 7)
    assert torch.allclose(mix_channels(A, V), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("make", [FRM, lambda config: PIM(config, 3)])
def test_merging_is_the_convolution_of_the_concatenation(make, mode):
    frm = speed_up(make(DHRNetConfig(channels=12, heads=3, upsample=mode)))
    assert isinstance(frm, FastFRM)
    F_high, F_low = random_map(2, 12, 16, 24), random_map(2, 12, 16 // frm.k, 24 // frm.k, seed=1)
    up = nnf.interpolate(F_low, scale_factor=frm.k, mode=mode, **({"align_corners": False} if mode == "bilinear" else {}))
    assert torch.allclose(frm.concat_and_merge(F_high, F_low), frm.merge(torch.cat([F_high, up], dim=1)), atol=1e-5)


# --- memory ----------------------------------------------------------------------------------------------------------

def test_keeping_memory_changes_no_result():
    code = ("import sys, torch; sys.path.insert(0, sys.argv[1]); from beyond.fast import keep_memory\n"
            "x = torch.ones(4, 2 ** 20).sum(); keep_memory(); assert torch.ones(4, 2 ** 20).sum() == x == 2 ** 22")
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True)


def test_a_narrow_map_is_halved_in_float32_and_a_wide_one_in_half_precision():
    """In bfloat16, oneDNN returned nan for maps 1 or 2 pixels wide on some processors."""
    model = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1))
    wanted, x = model.to(memory_format=torch.channels_last), random_map(1, 8, 16, 16)
    exact = {width: wanted(x[..., :width]) for width in (2, 16)}
    fast_form = speed_up(wanted)
    assert torch.equal(fast_form(x), exact[16])
    with torch.autocast("cpu", torch.bfloat16):
        narrow, wide = fast_form(x[..., :2].bfloat16()), fast_form(x)
    assert narrow.dtype == torch.float32 and wide.dtype == torch.bfloat16
    assert (narrow - exact[2]).abs().max() < 0.02 and (narrow - fast_form(x[..., :2].bfloat16().float())).abs().max() == 0
