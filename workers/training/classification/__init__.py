"""Training for image classification: batches, loss, metrics and report."""
