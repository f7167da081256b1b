"""Unpacking of untrusted archives."""
