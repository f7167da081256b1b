"""Semantic segmentation: a category for every pixel."""
