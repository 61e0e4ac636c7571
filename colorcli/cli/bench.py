"""`colorcli bench`: how fast this machine colors."""


def bench() -> None:
    """Measure how fast this machine colors."""
