"""Training for object detection, with or without masks: batches, losses, metrics and report."""
