"""Grades exercises 1 to 4: T, X_i, the prior of the truth, low and high frequencies. Each starts with a case computed by hand."""

import math

import torch
import torch.nn as nn
from slow import SMALL, arrays, conv_of, enlarge, normal, pool, rand, residual
from yours import holds, same


def slow_T(hdr):
    return torch.log(1 + 5000 * hdr.double()).div(math.log(5001)).float()


# --- 1: the mu-law ----------------------------------------------------------------------------------------------------

def test_ex1_T_has_the_values_computed_by_hand(code):
    x = torch.tensor([0.0, 1 / 5000, 0.01, 0.5, 1.0])
    same("Eq. 6, T(0, 1/5000, 0.01, 0.5, 1)", code.data.T(x), [0, math.log(2) / math.log(5001), math.log(51) / math.log(5001),
                                                             math.log(2501) / math.log(5001), 1])


def test_ex1_the_inverse_has_the_values_computed_by_hand(code):
    same("T_inverse(0, 0.5, 1)", code.data.T_inverse(torch.tensor([0, 0.5, 1])), [0, (math.sqrt(5001) - 1) / 5000, 1])


def test_ex1_T_agrees_with_a_loop_in_float32_whatever_it_is_given(code):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = rand(3, 4).to(dtype) ** 4
        wanted = [[math.log(1 + 5000 * value) / math.log(5001) for value in row] for row in x.tolist()]
        for what, yours, right in ((f"T of {dtype}", code.data.T(x), wanted), (f"T_inverse of {dtype}", code.data.T_inverse(torch.tensor(wanted)), x)):
            same(what, yours, right)
            holds(f"{what}: float32 is wanted, yours is {yours.dtype}", yours.dtype == torch.float32)
        holds("T_inverse of half precision: float32 is wanted", code.data.T_inverse(x).dtype == torch.float32)


# --- 2: X_i -----------------------------------------------------------------------------------------------------------

def test_ex2_radiance_has_the_values_computed_by_hand(code):
    ldr = torch.full((1, 3, 3, 1, 1), 0.5)
    H = code.data.to_radiance(ldr, torch.tensor([[0.0, 2.0, 4.0]]))             # t = 1, 4, 16; 0.5 ^ 2.2 = 0.21764
    holds(f"to_radiance: the shape (1, 3, 3, 1, 1) is wanted, yours is {tuple(H.shape)}", H.shape == (1, 3, 3, 1, 1))
    same("H_1, H_2, H_3 of L = 0.5 at 0, 2, 4 EV", H[0, :, 0, 0, 0], [0.2176376, 0.0544094, 0.0136024])


def test_ex2_the_shortest_exposure_has_t_1_whatever_its_ev(code):
    H = code.data.to_radiance(torch.ones(2, 3, 3, 1, 1), torch.tensor([[-3.0, -1.0, 2.0], [5.0, 6.0, 7.0]]))
    same("H_i of L = 1 at -3, -1, 2 and at 5, 6, 7 EV", H[:, :, 0, 0, 0], [[1, 1 / 4, 1 / 32], [1, 1 / 2, 1 / 4]])


def test_ex2_six_channels_agree_with_a_loop(code):
    ldr, ev = rand(2, 3, 3, 2, 4), torch.tensor([[1.0, 3.0, 5.0], [0.0, 3.0, 6.0]])
    wanted = torch.empty(2, 3, 6, 2, 4)
    for b in range(2):
        for i in range(3):
            for c in range(3):
                wanted[b, i, c] = ldr[b, i, c]
                wanted[b, i, 3 + c] = ldr[b, i, c] ** 2.2 / 2 ** float(ev[b, i] - ev[b, 0])
    same("X_i = [L_i, H_i]", code.data.network_input(ldr, ev), wanted)


# --- 3: the prior of the truth ----------------------------------------------------------------------------------------

def seen_by_hand(hdr):
    """What LPENet's layers see, pixel by pixel: channel 16 c + 4 dy + dx is pixel (4 y + dy, 4 x + dx) of plane c."""
    planes = torch.cat([hdr, slow_T(hdr)], dim=1)
    seen = torch.empty(len(hdr), 96, hdr.shape[2] // 4, hdr.shape[3] // 4)
    for c in range(6):
        for dy in range(4):
            for dx in range(4):
                seen[:, 16 * c + 4 * dy + dx] = planes[:, c, dy::4, dx::4]
    return seen


def test_ex3_one_green_pixel_goes_where_computed_by_hand(code, monkeypatch):
    monkeypatch.setattr(code.lpenet, "T", slow_T)
    net, hdr = code.lpenet.LPENet(SMALL.lpenet), torch.zeros(1, 3, 4, 4)
    net.trunk = nn.Identity()
    hdr[0, 1, 2, 3] = 0.01                                                      # green, third row, last column; T(0.01) = 0.46164
    wanted = torch.zeros(1, 96, 1, 1)
    wanted[0, 16 * 1 + 4 * 2 + 3], wanted[0, 16 * 4 + 4 * 2 + 3] = 0.01, math.log(51) / math.log(5001)
    same("Eq. 6, PixelUnshuffle of one green pixel", net(hdr).flatten(), wanted.flatten())


def test_ex3_the_prior_agrees_with_loops(code, monkeypatch):
    monkeypatch.setattr(code.lpenet, "T", slow_T)
    torch.manual_seed(0)
    net, hdr = code.lpenet.LPENet(SMALL.lpenet), rand(1, 3, 8, 12)
    p = arrays(net)
    z = conv_of(p, "trunk.0", seen_by_hand(hdr)[0].double().numpy())
    for i in (1, 2):
        z = residual(p, f"trunk.{i}.", z)
    same("Eq. 6, z", net(hdr)[0], conv_of(p, "trunk.3", z))


# --- 4: low and high frequencies --------------------------------------------------------------------------------------

def test_ex4_the_parts_have_the_values_computed_by_hand(code):
    F = torch.tensor([0.0, 0.0, 4.0, 4.0]).reshape(1, 1, 1, 4).expand(1, 1, 2, 4)
    F_low, F_high = code.dhrnet.split_frequencies(F, 2)
    same("Eq. 7, F_low of the rows 0 0 4 4", F_low, [[[[0, 4]]]])
    same("Eq. 7, F_high of the rows 0 0 4 4", F_high, [[[[0, -1, 1, 0], [0, -1, 1, 0]]]])     # bilinear between 0 and 4: 0 1 3 4


def test_ex4_the_parts_agree_with_loops(code):
    F = normal(2, 3, 8, 12).double()
    for k in (2, 4):
        F_low, F_high = code.dhrnet.split_frequencies(F, k)
        for b in range(2):
            low = pool(F[b].numpy(), k)
            same(f"Eq. 7, F_low, k = {k}", F_low[b], low)
            same(f"Eq. 7, F_high, k = {k}", F_high[b], F[b].numpy() - enlarge(low, k))


def test_ex4_nearest_upsampling_repeats_the_means(code):
    F = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 6.0, 0.0, 8.0]]).reshape(1, 1, 2, 4)
    F_low, F_high = code.dhrnet.split_frequencies(F, 2, "nearest")
    same("Eq. 7, F_low, nearest", F_low, [[[[3, 2]]]])
    same("Eq. 7, F_high, nearest", F_high, [[[[-2, -1, -2, -2], [0, 3, -2, 6]]]])
