"""One predictor per task, with the interface of `models.predictor`."""
