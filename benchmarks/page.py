"""Fill the page on speed from measured files: `python -m benchmarks.page FOLDER docs/speed.md`.

With --run everything is measured first, one benchmark after the other, each in a process of its own; about ten minutes
on two cores that nothing else uses. Between `<!-- name -->` and `<!-- /name -->` stands what FOLDER/name.json says;
what has no file there stays as it is. The plots lie beside the page.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import note
from benchmarks.presets import tables as presets_tables
from benchmarks.scale import TITLES, drawn

PLOT = "speed-scale.svg"
# Those that make the page, in the order they run; each takes --json FILE.
BENCHMARKS: dict[str, Sequence[str]] = {
    "shot": (), "frames": (), "startup": ("--rounds", "3"), "encoding": (), "busy": (), "unet_peak": (),
    "guidance": ("--rounds", "7"), "scale": ("--rounds", "3"),
}
# Those that take longer, or need what is not always installed: only where they are named.
ON_REQUEST: dict[str, Sequence[str]] = {"engines": (), "presets": ()}

Result = dict[str, Any]


def main() -> None:
    """Measure if asked, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the measured files")
    parser.add_argument("page", type=Path)
    parser.add_argument("--run", nargs="*", metavar="NAME", choices=[*BENCHMARKS, *ON_REQUEST],
                        help=f"measure first: {', '.join(BENCHMARKS)}; if named, {', '.join(ON_REQUEST)}")
    options = parser.parse_args()
    if options.run is not None:
        run(options.folder, options.run or BENCHMARKS)
    results = {file.stem: json.loads(file.read_text()) for file in sorted(options.folder.glob("*.json"))}
    options.page.write_text(filled(options.page.read_text(), results))
    if "scale" in results:
        options.page.with_name(PLOT).write_text(drawn(results["scale"]["axes"]), encoding="utf-8")


def run(folder: Path, names: Iterable[str]) -> None:
    """Run benchmarks, each in a process of its own; one that fails ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        note(f"--- {name}")
        own = {**BENCHMARKS, **ON_REQUEST}[name]
        command = [sys.executable, "-m", f"benchmarks.{name}", *own, "--json", str(folder / f"{name}.json")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def filled(page: str, results: Mapping[str, Result]) -> str:
    """Give the page with its tables made anew from those results that are there. Raises ValueError for an open one."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if (begin in page) != (end in page):
            raise ValueError(f"the page has only one of {begin} and {end}")
        if name in results:
            before, after = page[: page.index(begin)], page[page.index(end) + len(end) :]
            page = f"{before}{begin}\n{table(results[name])}\n\n{conditions(results[name])}\n{end}{after}"
    return page


def conditions(result: Result) -> str:
    """Say on what it was measured."""
    on = result["machine"]
    shared = max(on["load"], result["load_after"]) > on["cores"] + 0.5
    busy = ", on a machine that others used as well" if shared else ""
    return (f"*{on['cores']} cores of {on['processor']}, torch {on['libraries']['torch']}; "
            f"load {on['load']} before and {result['load_after']} after{busy}.*")


def shot_table(result: Result) -> str:
    """Whole commands against the plain loop."""
    seconds = result["runs"]["seconds"]
    rows = []
    for held, found in result["against_plain"].items():
        frames, alike = result["frames"][held], found["equivalence"]
        rows.append((
            f"{frames} frames on {held}, {result['drawings']} drawings", f"{seconds[f'plain_{held}']['median']:.1f} s",
            f"{seconds[f'ours_{held}']['median']:.1f} s", times(found["ratio"]), level(alike["max_difference"]),
            f"{alike['delta_e_p99']:g}",
        ))
    doubled = times(result["twos_against_ones"]["ratio"])
    heading = ("512×512", "plain loop", "colorcli", "times as fast", "max difference", "ΔE p99")
    return (f"{lay(heading, rows)}\n\nFrames a second on twos against on ones: {doubled}.")


def frames_table(result: Result) -> str:
    """Stages of a frame, one after the other."""
    stages = next(iter(result["sizes"].values()))["stages"]
    rows = [
        (size, f"{found['seconds_per_frame']['median']:.2f} s",
         *(f"{1000 * each['median']:.0f} ms" for each in found["stages"].values()),
         f"{found['share_io']:.0%}") for size, found in result["sizes"].items()
    ]
    return lay(("size", "a frame", *stages, "reading and writing"), rows)


def startup_table(result: Result) -> str:
    """From the command to its first frame."""
    rows = [
        (size, *(f"{found[key]['median']:.2f} s" for key in (
            "first_frame_seconds", "command_with_one_frame_seconds", "one_more_frame_seconds")))
        for size, found in result["sizes"].items()
    ]
    heading = ("size", "first frame lies there", "command with one frame", "one more frame")
    return f"{lay(heading, rows)}\n\n`colorcli --help`: {result['help_seconds']['median']:.2f} s."


def encoding_table(result: Result) -> str:
    """Files of a 1024x1024 frame."""
    rows = []
    for kind, found in result["pictures"].items():
        for way in ("png", "exr"):
            table = found[way]
            for name, seconds in table["cpu_seconds"].items():
                same = "same" if table["same_pixels"][name] else "OTHER"
                rows.append((f"{kind}, {way.upper()}", name, f"{1000 * seconds:.0f} ms",
                             f"{table['kilobytes'][name]:,.0f} kB", same))
    return lay(("picture", "written by", "processor time", "file", "pixels"), rows)


def busy_table(result: Result) -> str:
    """Beside one busy process."""
    rows = [
        (name, *(f"{found['seconds_per_frame'][place]['median']:.2f} s" for place in ("quiet", "beside")),
         times(found["slowdown"])) for name, found in result["threads_that_wait"].items()
    ]
    return lay(("waiting threads are", "alone, a frame", "beside a busy process", "times as long"), rows)


def peak_table(result: Result) -> str:
    """The network against the matrix product."""
    rows = [
        (size, f"{found['gflop']:.1f}", f"{found['gflops']:.0f}", f"{found['share_of_matmul']:.0%}",
         f"{found['share_by_processor_time']:.0%}")
        for size, found in result["network"].items()
    ]
    rows.append(("matrix product", "17.2", f"{result['matmul_gflops']:.0f}", "100%", "100%"))
    return lay(("canvas", "GFLOP a call", "GFLOP/s", "of the matrix product", "by processor time"), rows)


def scale_table(result: Result) -> str:
    """The fitted constants."""
    rows = []
    for name, axis in result["axes"].items():
        constants = axis["fit"]["constants"]
        formula = " + ".join(f"{seconds:.3g}{FACTORS[power]}" for power, seconds in constants.items())
        amounts = [amount for amount, _ in axis["points"]]
        measured = f"{amounts[0]:,.0f} to {amounts[-1]:,.0f}"
        rows.append((TITLES[name], measured, f"{formula} s", f"{axis['fit']['misses']:.0%}"))
    return lay(("against", "measured from", "seconds", "misses a point by at most"), rows)


def guidance_table(result: Result) -> str:
    """The guided pair, plain against ours."""
    rows = []
    for name, network in result["networks"].items():
        for case in network["cases"]:
            work, apart = case["gflop"], case["max_difference"] / case["largest_value"]
            rows.append((f"{name}, {case['latents']}×{case['latents']}", f"{case['tokens']}", times(case["ratio"]),
                         f"{work['plain']:.2f}", f"{work['ours']:.2f}", f"{apart:.0e}"))
    heading = ("network, latents", "tokens", "times as fast", "GFLOP, plain", "ours", "difference of the largest")
    return lay(heading, rows)


def engine_table(result: Result) -> str:
    """OpenVINO against torch."""
    rows = []
    for size, found in result["sizes"].items():
        seconds, alike = found["frame"]["seconds"], found["pictures"]
        rows.append((f"frame, {size}", *(f"{seconds[who]['median']:.2f} s" for who in ("torch", "openvino")),
                     times(found["frame"]["ratios"]["openvino"]), level(alike["max_difference"]),
                     f"{alike['delta_e_p99']:g}"))
    for name, found in result["networks"].items():
        seconds, share = found["runs"]["seconds"], found["share_of_matmul"]
        of_peak = (f"{1000 * seconds[who]['median']:.0f} ms, {share[who]:.0%}" for who in ("torch", "openvino"))
        rows.append((f"{name} alone, and of the matrix product", *of_peak, times(found["runs"]["ratios"]["openvino"]),
                     f"{found['max_difference_of_largest']:.0e} of the largest", ""))
    return lay(("mini", "torch", "OpenVINO", "times as fast", "max difference", "ΔE p99"), rows)


FACTORS = {"0": "", "1": " n", "2": " n²"}
TABLES: dict[str, Callable[[Result], str]] = {
    "shot": shot_table, "frames": frames_table, "startup": startup_table, "encoding": encoding_table,
    "busy": busy_table, "unet_peak": peak_table, "scale": scale_table,
    "presets": presets_tables, "engines": engine_table, "guidance": guidance_table,
}


def lay(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of Markdown; numbers to the right."""
    lines = [heading, ["---" if place == 0 else "--:" for place in range(len(heading))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(found: Mapping[str, float]) -> str:
    """Write a ratio with its interval."""
    return f"**{found['median']:.2f}** ({found['low']:.2f} to {found['high']:.2f})"


def level(difference: float) -> str:
    """Write the difference of a channel, 0..1, as levels of 8 bits."""
    return f"{255 * difference:.3g} of 255"


if __name__ == "__main__":
    main()
