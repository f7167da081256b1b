"""Where the numbers in the documents come from: each script prints its own, `make bench` runs them all."""
