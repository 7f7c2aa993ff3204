"""One run of the stock trainer: its settings, what it records, and what makes it fast on a CPU."""
