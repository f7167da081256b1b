"""Background work: jobs, their queue and store, data sets, and the training runs."""
