"""What a worker does with a job: run it, publish its result, and find jobs whose worker was lost."""
