"""How good the results are and how fast they come: metrics, tables beside the paper's, and the benchmark."""
