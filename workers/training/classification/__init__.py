"""Image classification: which loss, which metrics, which pictures tell how it went."""
