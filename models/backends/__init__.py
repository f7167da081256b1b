"""How a network runs: as PyTorch's own operators one by one, or compiled for a device."""
