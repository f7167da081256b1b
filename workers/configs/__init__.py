"""What a job may say: its fields, their defaults, and how names are resolved to versions."""
