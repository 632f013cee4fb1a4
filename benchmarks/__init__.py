"""Speed, as ratios of alternatives timed in turn in one run: `python -m benchmarks`."""
