"""Background work: jobs with their queue and store, datasets, and training runs."""
