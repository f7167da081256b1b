"""Data sets: from a posted archive to an immutable, validated version on disk."""
