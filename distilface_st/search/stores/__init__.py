"""Where passages and their vectors are kept: one backend a file behind :class:`.base.VectorStore`."""
