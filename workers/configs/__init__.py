"""The configurations of jobs: their fields, their defaults, and how names are resolved to versions."""
