"""The serving engine: from encoded images and a model reference to predictions."""
