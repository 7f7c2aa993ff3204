"""What any room may need and that knows no model, no text and no training."""
