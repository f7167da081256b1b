"""Faster backends, built and verified beside the server."""
