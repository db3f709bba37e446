"""Two departures of the optimisation: a running mean of the weights (D7), and a learning rate that falls by a cosine (D12)."""

import math

import torch


def learning_rate(optimiser, settings, beyond, epoch):
    """The schedule of the learning rate: StepLR as in the paper, or with --cosine a rise and then a cosine to 0. epoch: its steps."""
    if not beyond.cosine:
        return torch.optim.lr_scheduler.StepLR(optimiser, settings.decay_epochs * epoch, settings.decay)
    rise, steps = beyond.cosine, settings.epochs * epoch
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min((n + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * min(n / steps, 1))))


@torch.no_grad()
def follow(average, network, ema, step):
    """average <- ema average + (1 - ema) network. Step n, counted from 1, keeps at most n / (n + 10) of the average, which begins untrained."""
    for mean, value in zip(average.parameters(), network.parameters()):
        mean.lerp_(value, 1 - min(ema, step / (step + 10)))
