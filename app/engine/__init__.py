"""Serving: from encoded images and a model reference to scores."""
