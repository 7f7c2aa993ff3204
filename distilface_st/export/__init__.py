"""From a model to one graph, token ids in and sentence embedding out: traced, converted, quantized, compared."""
