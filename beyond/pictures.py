"""Draws panels of frames, merge and result, the spread of several samples of the prior, and the progress of training.

The prior is sampled, so the result has a spread: the standard deviation of T(H^) over several results, at each pixel. docs/spread.md says how well
this tells generated content from observed content.
"""

import torch
import torch.nn.functional as nnf

from beyond.fast import by_strips
from beyond.tiles import reconstruct_in_tiles
from beyond.tonemap import picture
from brackets.marks import PICTURE, RESULT
from brackets.merge import PLAIN, weighted_merge
from brackets.register import enlarged_by
from brackets.files import save_figure
from data import T, psnr, to_radiance

WHITE, DARKER = 0.98, 0.7       # coded value that counts as saturated; share of the radiance below which a short frame contradicts it
PANEL = 2000            # longest side of one picture in the panel, pixels
TALLEST = 3.0           # height over width of the space for one picture


@torch.no_grad()
def plain_results(ldr, ev):
    """Makes the results that need no network. ldr: (1, 3, 3, H, W), ev: (1, 3). Returns: {title: (1, 3, H, W) linear radiance}."""
    return {title: by_strips(lambda ldr, plain=plain: plain(ldr, ev), ldr, halo=0) for title, plain in PLAIN.items()}


@torch.no_grad()
def sample_images(model, ldr, ev, seeds, tile=0, S=None, sampler="ddim"):
    """Computes one result for each seed, each from its own prior: their mean, and their standard deviation after T.

    model, ldr, ev, tile, S, sampler: see tiles.reconstruct_in_tiles; batch of one. seeds: list of int.
    Returns: mean (1, 3, H, W) linear radiance, float32; spread (1, 1, H, W), root mean square over the channels of the standard
    deviation of T(H^) over the seeds (of the population, so 0 for one seed).
    """
    mean, of_T, squares = 0, 0, 0
    for k, seed in enumerate(seeds, start=1):
        hdr_hat = reconstruct_in_tiles(model, ldr, ev, tile, S, sampler, torch.Generator().manual_seed(seed))
        if len(seeds) == 1:                                     # a large image leaves no memory to spare
            return hdr_hat, torch.zeros_like(hdr_hat[:, :1])
        hdr_mu = T(hdr_hat)
        mean = mean + (hdr_hat - mean) / k                      # Welford's running mean and sum of squares: exactly 0 for equal images
        step = hdr_mu - of_T
        of_T = of_T + step / k
        squares = squares + step * (hdr_mu - of_T)
    return mean, (squares / len(seeds)).clamp(min=0).mean(dim=1, keepdim=True).sqrt()


@torch.no_grad()
def regions(ldr, ev):
    """Finds where the reference frame observed the scene, and where it did not. ldr: (1, 3, 3, H, W), ev: (1, 3).

    Returns: {name: (1, 1, H, W) bool}. A pixel that is saturated in the reference is at least as bright as 1 / t_2. The short frame should
    show how bright. Where it is darker than that, it contradicts: something moved there, and no frame holds the content.
    """
    saturated = (ldr[:, 1] >= WHITE).any(dim=1, keepdim=True)
    H_1, H_2 = to_radiance(ldr[:, :2], ev[:, :2]).unbind(dim=1)
    contradicted = ((H_1 < DARKER * H_2) & (ldr[:, 1] >= WHITE)).any(dim=1, keepdim=True)
    return {"saturated, and the short frame contradicts": contradicted, "saturated, the short frame agrees": saturated & ~contradicted,
            "not saturated": ~saturated}


def spread_in_words(spread, ldr, ev):
    """Lists the mean spread in each of regions(), one line each. spread: (1, 1, H, W); ldr, ev: as there."""
    means = {title: (float(spread[region].mean()) if region.any() else float("nan"), 100 * region.float().mean()) for title, region in regions(ldr, ev).items()}
    return "\n".join(f"  {title:<43} {mean:.5f}   ({share:.1f} % of the pixels)" for title, (mean, share) in means.items())


def shrink(image):
    """Shrinks an image (C, H, W) for the panel, by the smallest whole number that leaves no side longer than PANEL."""
    return nnf.avg_pool2d(image, -(-max(image.shape[-2:]) // PANEL))


def shrunk_bracket(ldr, homographies):
    """Shrinks a bracket (3, 3, H, W) as shrink() does. Returns: the smaller one, and its homographies (3, 3, 3) in its own pixels."""
    k = -(-max(ldr.shape[-2:]) // PANEL)
    return torch.stack([shrink(frame) for frame in ldr]), torch.stack([torch.from_numpy(enlarged_by(1 / k, homography)) for homography in homographies])


@torch.no_grad()
def panels(ldr, ev, hdr_hat, hdr=None, longer_by=0.0, for_the_eye=None):
    """Makes the pictures of the panel, at most PANEL pixels a side, and the number of columns, for save_panel.

    ldr: (1, 3, 3, H, W), ev: (1, 3), hdr_hat: (1, 3, H, W), hdr: (3, H, W) or None; longer_by: stops by which the
    shortest frame of ldr is exposed longer than the unit of hdr_hat and hdr; for_the_eye: picture() of hdr_hat, if it has been made already.
    """
    ldr, hdr_hat = torch.stack([shrink(frame) for frame in ldr[0]])[None], shrink(hdr_hat[0])
    if for_the_eye is None:
        for_the_eye = picture(hdr_hat.clamp(min=0).permute(1, 2, 0).float().cpu().numpy())
    shown = [(f"frame {i + 1}, {float(stops):+.3g} EV", frame) for i, (stops, frame) in enumerate(zip(ev[0], ldr[0]))]
    shown += [("weighted merge", T(weighted_merge(ldr, ev)[0] * 2.0 ** -longer_by)), ("LF-Diff", T(hdr_hat))]
    if hdr is not None:
        truth = T(shrink(hdr))
        shown += [("truth", truth), ("5 x |LF-Diff - truth|", 5 * (T(hdr_hat) - truth).abs())]
    for_the_eye = shrink(torch.from_numpy(for_the_eye).permute(2, 0, 1).float()) / 255
    return [*shown, ("LF-Diff, as in NAME.jpg", for_the_eye)], 4 if hdr is not None else 3


def drawn_height(width, image):
    """Returns the height at which an image (..., H, W) is drawn, inches. A very tall one is drawn narrower, or the figure would take gigabytes."""
    H, W = image.shape[-2:]
    return width * min(H / W, TALLEST)


def save_panel(path, panels, columns=3, width=4.0, mark=PICTURE):
    """Writes titled pictures side by side as one PNG.

    panels: list of (title, image), image (3, H, W) in [0, 1] (clipped), all of one size; width: of one picture, inches; mark: from marks.py.
    """
    from matplotlib.figure import Figure    # 0.3 s to import: only when a picture is drawn
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * width, rows * (drawn_height(width, panels[0][1]) + 0.3)), layout="constrained")
    for i, (title, image) in enumerate(panels):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        axis.imshow(image.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="antialiased")
    save_figure(path, figure, 150, mark)


def heat_map(figure, axis, spread):
    """Draws a spread (H, W) with its colour bar, cut off so that only one pixel in a thousand is above."""
    top = float(spread.flatten().sort().values[int(0.999 * (spread.numel() - 1))])
    figure.colorbar(axis.imshow(spread.numpy(), cmap="magma", vmin=0, vmax=max(top, 1e-6)), ax=axis, shrink=0.8, extend="max")


def save_spread(path, hdr_mu, spread):
    """Writes the result beside the map of its spread, with a colour bar. hdr_mu: (3, H, W) in [0, 1], spread: (H, W)."""
    from matplotlib.figure import Figure        # 0.3 s to import: only when a plot is drawn
    hdr_mu, spread = shrink(hdr_mu), shrink(spread[None])[0]
    figure = Figure(figsize=(14, drawn_height(7, spread) + 0.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(hdr_mu.permute(1, 2, 0).clamp(0, 1).numpy())
    heat_map(figure, right, spread)
    left.set_title("mean of the samples, T(H)")
    right.set_title("standard deviation of T(H) over the samples")
    for axis in (left, right):
        axis.axis("off")
    save_figure(path, figure, 100, RESULT)


def save_progress_picture(path, ldr, hdr_hat, hdr):
    """Writes LDRs, output, truth and 5 x error in the mu-law domain, side by side. ldr: (3, 3, H, W); hdr_hat, hdr: (3, H, W)."""
    output, truth = T(hdr_hat), T(hdr)
    save_panel(path, [("short", ldr[0]), ("reference", ldr[1]), ("long", ldr[2]),
                      (f"output, PSNR-μ {psnr(output, truth):.2f} dB", output), ("truth", truth),
                      ("5 x |output - truth|", 5 * (output - truth).abs())], columns=3)
