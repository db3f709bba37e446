"""From the files of a camera to a bracket that the network can use: reading, registration, tone curve, optical flow. See prepare.py."""
