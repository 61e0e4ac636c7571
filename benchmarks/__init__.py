"""How fast colorcli is: `python -m benchmarks.frames` and `python -m benchmarks.startup`."""
