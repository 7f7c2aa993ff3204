"""Text to train on and to score with: unlabelled sentences, neighbouring sentences, pairs, and the STS sets."""
