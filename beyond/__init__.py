"""What the paper does not have: the fast path on CPUs, tiles, untrained exposure steps (D11), the merge that Eq. 10 corrects (D8), still brackets (D14),
further loss terms (D5), weight files, logs and pictures."""
