"""How near the network comes to what the processor can do: `python -m benchmarks.unet_peak`.

Counted floating point operations a second of the network's calls, as a share of those of a large matrix product, which
takes turns with them. Threads that wait sleep, as in the command.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import interleaved, load, machine, report
from colorcli.cli.main import calm_idle_threads

SIDE = 2048                                       # of the matrices
CANVASES = ((320, 320), (512, 512), (1024, 1024))   # (width, height) in pixels; the first is mini's own


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    calm_idle_threads(os.environ)
    report(measure(options.rounds, options.model), options.json)


def measure(rounds: int, model: str) -> dict[str, Any]:
    """Time the matrix product and the network on canvases of some sizes, in turns."""
    import torch

    from benchmarks.network import call_of, flops_of
    from colorcli.loading import load_pipeline

    before, pipeline = machine(), load_pipeline(model, "cpu")
    one, other = torch.randn(2, SIDE, SIDE).unbind()
    with torch.inference_mode():
        networks = {f"{w}x{h}": call_of(pipeline, (w, h)) for w, h in CANVASES}
        flops = {name: flops_of(call) for name, call in networks.items()}
        times = interleaved({"matmul": partial(torch.matmul, one, other), **networks}, rounds, warm_up=2)
    peak = 2 * SIDE**3 / times["seconds"]["matmul"]["shortest"] / 1e9
    rates = {name: flops[name] / 1e9 / times["seconds"][name]["median"] for name in networks}
    return {
        "benchmark": "unet_peak", "model": model, "machine": before, "load_after": load(),
        "threads": torch.get_num_threads(), "runs": times, "peak_gflops": round(peak, 1),
        "matmul_gflops": round(2 * SIDE**3 / times["seconds"]["matmul"]["median"] / 1e9, 1),
        "network": {
            name: {
                "gflop": round(flops[name] / 1e9, 2), "gflops": round(rates[name], 1),
                # Of the median product, as the network's is the median: both had the same neighbors.
                "share_of_matmul": round(
                    flops[name] / (2 * SIDE**3) / times["seconds"][name]["median"]
                    * times["seconds"]["matmul"]["median"], 4),
                # Neighbors take the processor away, but hardly slow it down.
                "share_by_processor_time": round(
                    flops[name] / (2 * SIDE**3) / times["cpu_seconds"][name] * times["cpu_seconds"]["matmul"], 4),
            }
            for name in networks
        },
    }


if __name__ == "__main__":
    main()
