"""Drawings for people: labels, boxes and masks on an image, and contact sheets."""
