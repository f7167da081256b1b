"""The servers that Fovea is measured against, as its own documentation writes one and as well as it can be set."""
