"""Training for semantic segmentation, which predicts a category for every pixel: batches, loss, metrics and report."""
