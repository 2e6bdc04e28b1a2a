"""Speed side by side with lightly, in one process: `python -m benchmarks.speed --out FILE.json`."""
