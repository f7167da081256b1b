"""Detectors taken apart for speed: networks that a compiler can take, and vectorised code around them.

The results equal those of torchvision's own forward, see docs/decisions/0014.
"""
