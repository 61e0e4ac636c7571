"""What a farm should do after each exit code."""

from dataclasses import dataclass
from typing import Literal

# no: the same on every machine. here: on any machine, this one too. elsewhere: this machine lacks something.
# mend: when somebody has looked at it. Frames that are finished are never colored again, whatever is chosen.
Again = Literal["done", "no", "here", "elsewhere", "mend"]


@dataclass(frozen=True)
class ExitCode:
    """One exit status."""

    code: int
    means: str
    again: Again


EXIT_CODES = (
    ExitCode(0, "all frames are there", "done"),
    ExitCode(1, "a mistake of colorcli", "no"),
    ExitCode(2, "the command line", "no"),
    ExitCode(3, "the shot or the key cannot be used", "mend"),
    ExitCode(4, "the preset or the recipe", "no"),
    ExitCode(5, "the weights: missing, damaged, of another model", "elsewhere"),
    ExitCode(6, "the device, or its memory", "elsewhere"),
    ExitCode(7, "some frames failed; the others are done", "mend"),
    ExitCode(8, "a training whose loss is no number any more", "no"),
    ExitCode(9, "the output cannot be written: no room, no right, no folder", "elsewhere"),
    ExitCode(130, "interrupted (SIGINT); what is finished stays finished", "here"),
    ExitCode(137, "killed (SIGKILL), often for memory; what is finished stays finished", "elsewhere"),
    ExitCode(143, "terminated (SIGTERM), as on preemption; what is finished stays finished", "here"),
)
