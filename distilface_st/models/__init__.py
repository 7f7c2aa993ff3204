"""Build, load and save a model, its weights packed or not, and open whatever encodes by its name."""
