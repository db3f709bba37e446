"""Measures quality and speed: metrics, tables beside the paper's, and the benchmark."""
