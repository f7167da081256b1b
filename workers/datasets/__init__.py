"""Datasets: from a posted archive to an immutable, validated version on disk."""
