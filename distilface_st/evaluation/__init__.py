"""Evaluators, one a file, in the manner of sentence-transformers: call one with a model and it returns its metrics."""
