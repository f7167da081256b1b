"""Datasets as files for people and other tools: exports, contact sheets."""
