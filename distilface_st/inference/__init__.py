"""Running an exported folder: its manifest, its tokenizer and its graph. Nothing in here imports torch."""
