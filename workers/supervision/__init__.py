"""The work of a worker process: run jobs, publish their results, and find jobs whose worker was lost."""
