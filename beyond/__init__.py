"""What the paper does not have: the fast path on CPUs, tiles, the blend (D8), further loss terms (D5), weight files and pictures."""
