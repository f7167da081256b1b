"""Object detection, with masks where the data has them."""
