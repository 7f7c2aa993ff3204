"""Size, memory, start, speed and quality of encoders and runtimes, side by side."""
