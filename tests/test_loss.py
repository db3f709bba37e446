"""loss.py: Eq. 11 with a random VGG19 in the official file's key layout, Eq. 15."""

import math
import os
from urllib.error import URLError

import pytest
import torch
import torch.nn as nn

from beyond.weights import load_vgg19
from loss import LossConfig, VGG19Features, diffusion_loss, reconstruction_loss

torch.set_num_threads(1)

# Where the published weight file keeps each convolution: (i, j) -> number after "features.".
INDEX = {(0, 1): 0, (0, 2): 2, (1, 1): 5, (1, 2): 7, (2, 1): 10, (2, 2): 12, (2, 3): 14, (2, 4): 16, (3, 1): 19, (3, 2): 21, (3, 3): 23,
         (3, 4): 25, (4, 1): 28, (4, 2): 30, (4, 3): 32, (4, 4): 34}
WIDTH = {0: 64, 1: 128, 2: 256, 3: 512, 4: 512}


def random_vgg(last=34):
    """Makes a state dict with the published names and shapes up to features.`last`; He initialisation keeps the signal alive."""
    generator, state, before = torch.Generator().manual_seed(0), {}, 3
    for (i, _), index in INDEX.items():
        if index <= last:
            state[f"features.{index}.weight"] = torch.randn(WIDTH[i], before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
            state[f"features.{index}.bias"] = torch.randn(WIDTH[i], generator=generator) * 0.1
            before = WIDTH[i]
    return state


def reference_vgg(state):
    """Builds VGG19 as a plain nn.Sequential from its published recipe; modules are numbered as in the file."""
    layers, before = [], 3
    for entry in (64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool", 512, 512, 512, 512, "pool", 512, 512, 512, 512):
        if entry == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before, entry, 3, 1, 1), nn.ReLU()]
            before = entry
    net = nn.Sequential(*layers[:max(int(name.split(".")[1]) for name in state) + 2])
    net.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    return net


def reference_features(state, image, pairs):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, found = torch.stack([(image[:, c] - mean[c]) / std[c] for c in range(3)], dim=1), {}
    for number, layer in enumerate(reference_vgg(state)):
        x = layer(x)
        found[number] = x
    return [found[INDEX[pair] + 1] for pair in pairs]           # + 1: after the ReLU


def mu_law(x):
    return torch.log(1 + 5000 * x.double()) / math.log(5001)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(random_vgg(last=16), path)                       # as far as the pooling after phi_21: 9 MB
    return path


@pytest.fixture(scope="module")
def vgg(vgg_file):
    return load_vgg19(LossConfig(vgg=str(vgg_file), phi=("1,1", "2,1")))


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 16, 24, generator=generator) ** 3, torch.rand(2, 3, 16, 24, generator=generator) ** 3


# --- phi -------------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_phi_ij_is_the_published_layer_of_vgg19():
    state, image = random_vgg(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ours = VGG19Features(list(INDEX), state)(image)
    for (i, j), mine, theirs in zip(INDEX, ours, reference_features(state, image, list(INDEX))):
        assert mine.shape == (1, WIDTH[i], 16 >> i, 16 >> i)
        assert theirs.abs().max() > 0.1 and (mine - theirs).abs().max() < 1e-4, (i, j)


def test_default_phi_is_the_first_convolution_after_each_of_four_poolings():
    assert LossConfig().phi == ("1,1", "2,1", "3,1", "4,1") and LossConfig().lam == 0.01


def test_first_convolution_sees_red_first_with_imagenet_mean_and_deviation():
    state, image = random_vgg(last=2), torch.tensor([0.9, 0.3, 0.1]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    state["features.0.weight"], state["features.0.bias"] = torch.zeros(64, 3, 3, 3), torch.zeros(64)
    for c in range(3):
        state["features.0.weight"][c, c, 1, 1] = 1              # feature c is the normalised channel c
        state["features.0.weight"][3 + c, c, 1, 1] = -1         # and its negative, which the ReLU would hide
    features = VGG19Features([(0, 1)], state)(image)[0][0, :6, 5, 5]
    by_hand = [(0.9 - 0.485) / 0.229, 0, 0, 0, (0.456 - 0.3) / 0.224, (0.406 - 0.1) / 0.225]
    assert torch.allclose(features, torch.tensor(by_hand), atol=1e-5)


def test_swapping_red_and_blue_changes_the_features(vgg, pair):
    rgb, bgr = vgg(pair[0])[0], vgg(pair[0].flip(1))[0]
    assert (rgb - bgr).abs().mean() > 0.1 * rgb.abs().mean()


@pytest.mark.parametrize("i, j", [(5, 1), (0, 3), (1, 0), (-1, 1)])
def test_layer_that_vgg19_does_not_have_is_refused(i, j):
    with pytest.raises(ValueError, match=f"no convolution {j} after max-pooling {i}"):
        VGG19Features([(i, j)], {})


# --- the weight file -------------------------------------------------------------------------------------------------

def test_lambda_zero_needs_no_weight_file():
    assert load_vgg19(LossConfig(lam=0.0, vgg="nowhere.pth")) is None


def test_missing_weight_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth could not be read .*--vgg FILE.*--lam 0"):
        load_vgg19(LossConfig(vgg=str(tmp_path / "nowhere.pth")))
    with pytest.raises(FileNotFoundError, match=r"could not be read \(a folder, not a file\); download it"):
        load_vgg19(LossConfig(vgg=str(tmp_path)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_in_place_of_the_weight_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    keep_open = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)       # otherwise a bug would hang here instead of failing
    os.write(keep_open, b"no weights")
    with pytest.raises(FileNotFoundError, match=r"pipe could not be read \(a pipe or device, not a file\); download it"):
        load_vgg19(LossConfig(vgg=str(tmp_path / "pipe")))
    os.close(keep_open)


def test_failed_download_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"vgg19-dcbb9e9d\.pth could not be read .*no route to host.*--lam 0"):
        load_vgg19(LossConfig())


def test_download_is_the_official_file_read_without_running_code(monkeypatch):
    asked = {}
    def download(url, map_location=None, weights_only=False):
        asked.update(url=url, weights_only=weights_only)
        return random_vgg(last=16)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    assert load_vgg19(LossConfig(phi=("2,1",))) is not None
    assert asked == {"url": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "weights_only": True}


@pytest.mark.parametrize("phi", [("1",), ("1,x",), ("1,1", "2,1,3")])
def test_a_layer_that_is_no_pair_is_named_before_the_file_is_read(phi):
    with pytest.raises(ValueError, match=f"--phi {' '.join(phi)}: give pairs"):
        load_vgg19(LossConfig(vgg="nowhere.pth", phi=phi))


def test_file_without_a_needed_layer_is_named(vgg_file):
    with pytest.raises(ValueError, match=r"vgg19\.pth: .*'features\.19\.weight'.*; Eq\. 11 needs"):
        load_vgg19(LossConfig(vgg=str(vgg_file), phi=("3,1",)))


@pytest.mark.parametrize("kind", ["text", "truncated", "other shapes", "no dict"])
def test_file_that_is_not_vgg19_is_refused_in_one_line(tmp_path, vgg_file, kind):
    path = tmp_path / "broken.pth"
    if kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "truncated":
        path.write_bytes(vgg_file.read_bytes()[:-5000])
    elif kind == "other shapes":
        torch.save({name: value[:32] for name, value in random_vgg(last=7).items()}, path)
    else:
        torch.save([1, 2, 3], path)
    with pytest.raises(ValueError, match=r"broken\.pth") as error:
        load_vgg19(LossConfig(vgg=str(path), phi=("1,1",)))
    assert "\n" not in str(error.value)


# --- Eq. 11 ----------------------------------------------------------------------------------------------------------

def test_first_term_of_eq_11_at_hand_values():
    zero, one = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert abs(reconstruction_loss(one, zero, None, 0.01)[0].item() - 1) < 1e-6                 # T(0) = 0, T(1) = 1
    L_r, terms = reconstruction_loss(0.01 * one, zero, None, 0.01)
    assert abs(L_r.item() - math.log(51) / math.log(5001)) < 1e-6                               # 0.4616
    assert abs(terms["L1_mu"].item() - L_r.item()) < 1e-7 and list(terms) == ["L1_mu"]


@torch.no_grad()
def test_eq_11_is_its_two_terms_from_an_independent_vgg19(vgg, pair):
    hdr, hdr_hat = pair
    pairs, state = [(1, 1), (2, 1)], random_vgg(last=16)
    L1_mu = (mu_law(hdr) - mu_law(hdr_hat)).abs().mean().item()
    truth, output = (reference_features(state, mu_law(image).float(), pairs) for image in (hdr, hdr_hat))
    phi = [(a - b).abs().mean().item() for a, b in zip(truth, output)]
    L_phi = sum(phi) / 2                                                                        # the mean over the chosen layers
    for lam in (0.01, 0.5):
        L_r, terms = reconstruction_loss(hdr_hat, hdr, vgg, lam)
        assert abs(L_r.item() - (L1_mu + lam * L_phi)) < 1e-4                                   # λ times loss, not loss times loss
        assert abs(terms["L1_mu"].item() - L1_mu) < 1e-5 and abs(terms["L_phi"].item() - L_phi) < 1e-4
    assert min(phi) > 0.05                                                                      # the second term is not empty


def test_equal_images_have_no_loss(vgg, pair):
    assert reconstruction_loss(pair[0], pair[0].clone(), vgg, 0.01)[0].item() == 0


def test_gradient_of_eq_11_reaches_the_output_and_not_vgg(vgg, pair):
    hdr, hdr_hat = pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()
    L_r, terms = reconstruction_loss(hdr_hat, hdr.detach(), vgg, 0.01)
    assert not any(value.requires_grad for value in terms.values())
    L_r.backward()
    alone = torch.autograd.grad(reconstruction_loss(pair[1].requires_grad_(), hdr.detach(), None, 0.01)[0], pair[1])[0]
    assert (hdr_hat.grad != 0).all() and (hdr_hat.grad - alone).abs().max() > 1e-3 * alone.abs().max()  # phi has a gradient of its own
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in vgg.parameters())


def test_eq_11_is_computed_in_float32_inside_autocast(vgg, pair):
    hdr, hdr_hat = pair
    alone = reconstruction_loss(hdr_hat.bfloat16(), hdr, vgg, 0.01)[0]
    with torch.autocast("cpu", torch.bfloat16):
        L_r = reconstruction_loss(hdr_hat.bfloat16(), hdr, vgg, 0.01)[0]
    assert L_r.dtype == torch.float32 and L_r.item() == alone.item()


# --- Eq. 15 ----------------------------------------------------------------------------------------------------------

def test_eq_15_at_hand_values():
    def of(*values):
        return torch.tensor(values).reshape(1, 1, 1, 2)
    L_diff, terms = diffusion_loss(of(1.0, -1.0), of(0.0, 1.0), of(0.5, 0.0), of(0.0, 0.25))
    assert abs(terms["L_eps"].item() - 2.5) < 1e-6              # (1² + 2²) / 2
    assert abs(terms["L1_z"].item() - 0.375) < 1e-6             # (0.5 + 0.25) / 2
    assert abs(L_diff.item() - 2.875) < 1e-6


def test_eq_15_without_a_diffusion_model_is_the_l1_of_the_prior():
    z, z_hat, eps = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -0.25), torch.ones(1, 3, 2, 2)
    for noise in (None, eps):                                   # the train script has drawn noise that nobody predicts
        L_diff, terms = diffusion_loss(noise, None, z_hat, z)
        assert L_diff.item() == 0.25 and list(terms) == ["L1_z"] and terms["L1_z"].item() == 0.25


def test_both_terms_of_eq_15_have_a_gradient():
    eps, eps_hat, z, z_hat = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in range(4))
    L_diff, terms = diffusion_loss(eps.detach(), eps_hat, z_hat, z.detach())
    L_diff.backward()
    assert torch.allclose(eps_hat.grad, 2 * (eps_hat - eps).detach() / 96, atol=1e-7)
    assert torch.allclose(z_hat.grad, (z_hat - z).detach().sign() / 96, atol=1e-7)
    assert not any(value.requires_grad for value in terms.values())


def test_eq_15_of_half_precision_predictions_is_float32():
    noise = torch.randn(1, 3, 4, 4)
    L_diff, _ = diffusion_loss(noise, noise.bfloat16(), noise.bfloat16(), noise)
    assert L_diff.dtype == torch.float32 and 0 < L_diff.item() < 0.01
