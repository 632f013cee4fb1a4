"""Speed, as ratios of rivals timed in turn in one run: `python -m benchmarks`."""
