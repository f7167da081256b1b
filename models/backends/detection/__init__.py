"""Detectors taken apart for speed: networks that a compiler can take, and vectorised code around them.

What comes out is what torchvision's own forward gives, see docs/decisions/0014.
"""
