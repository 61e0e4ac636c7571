"""colorcli colors directories of animation line art from one reference image per shot."""

__version__ = "0.1.0"
