"""Tests of workers.datasets."""
