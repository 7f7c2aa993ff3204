"""What a SentenceTransformer is composed of. Paths in here are frozen: saved models name them."""

from .multi_layer_pooling import MultiLayerPooling

__all__ = ["MultiLayerPooling"]
