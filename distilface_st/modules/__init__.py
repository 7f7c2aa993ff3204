"""What a SentenceTransformer is composed of. Paths in here are frozen: saved models name them."""

from .multi_layer_pooling import MultiLayerPooling
from .onnx_encoder import OnnxEncoder

__all__ = ["MultiLayerPooling", "OnnxEncoder"]
