"""Compressing a sentence encoder into a small one: student, teachers' embeddings, training, int8 packing."""
