"""Two departures in the optimisation: a running mean of the weights (D7), and a learning rate that falls by a cosine (D12)."""

import math

import torch


def learning_rate(optimiser, settings, beyond, epoch, step):
    """Makes the schedule of the learning rate: down in steps as in the paper, or, with --cosine, a rise and then a cosine to 0.

    settings: TrainingConfig; beyond: BeyondConfig; epoch: steps in an epoch; step: the last step done, 0 at the start.
    Returns: LambdaLR. The rate is a function of the step alone, so no checkpoint holds it.
    """
    def share(n):
        if not beyond.cosine:
            return settings.decay ** (n // (settings.decay_epochs * epoch))
        return min((n + 1) / beyond.cosine, 0.5 + 0.5 * math.cos(math.pi * min(n / (settings.epochs * epoch), 1)))
    for group in optimiser.param_groups:
        group["initial_lr"] = settings.lr
    return torch.optim.lr_scheduler.LambdaLR(optimiser, share, last_epoch=step - 1)


@torch.no_grad()
def follow(average, network, ema, step):
    """Updates average <- ema average + (1 - ema) network. Step n, from 1 on, keeps at most n / (n + 10) of the average, which begins untrained."""
    for mean, value in zip(average.parameters(), network.parameters()):
        mean.lerp_(value, 1 - min(ema, step / (step + 10)))
