"""Turns a camera's files into a bracket that the network can use: reading, registration, tone curve, optical flow. See prepare.py."""
