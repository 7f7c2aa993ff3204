"""Every pooling of an encoder, scored from one forward pass without training."""
