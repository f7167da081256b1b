"""Vision models on torch and torchvision: architectures, presets, registry, prediction. Knows no HTTP and no queue."""
