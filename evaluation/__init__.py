"""How good and how fast: metrics, tables beside the paper's, and the benchmark."""
