"""Synthetic brackets: scenes from three sources, photographed by a simulated camera. See dataset.py."""
