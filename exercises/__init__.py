"""Exercises for readers of the paper: write a formula again, find a bug, predict and measure, walk through Fig. 2. Start with README.md."""
