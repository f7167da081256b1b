"""Ways to run a network: PyTorch's own operators one by one, or a network compiled for a device."""
