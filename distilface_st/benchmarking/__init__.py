"""The parts of a benchmark: what is compared, the processes that take turns, what they report, and the plot."""
