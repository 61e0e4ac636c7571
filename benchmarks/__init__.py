"""How fast colorcli is (`python -m benchmarks.frames`, `benchmarks.startup`), and how near (`benchmarks.samplers`)."""
