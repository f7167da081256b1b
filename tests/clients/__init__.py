"""Clients that other people's programs generate, against a real server: `make clients`."""
