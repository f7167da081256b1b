"""Masks of objects, as run lengths, arrays and polygons."""
