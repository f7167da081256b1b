"""One predictor a task, behind the interface in `models.predictor`."""
