"""From the bytes of an image file to tensors: the one decoder, presets, resampling and tiling."""
