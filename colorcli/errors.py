"""What can go wrong: one class for each kind of failure, with its exit code and a hint for the user."""

from typing import ClassVar


class ColorcliError(Exception):
    """A failure that the user can understand and act on.

    `message` names the file and the facts that disagree; `hint` is something to do about it.
    `kind` is the word in the last log line `colorcli: error[kind]: ...`; `exit_code` is the exit status of the process.
    """

    kind: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ColorcliError):
    """The command line asks for something that cannot be done, such as writing into the input folder."""

    kind = "usage"
    exit_code = 2


class OutputError(ColorcliError):
    """The output cannot be written: the disk or quota is full, the folder read-only, gone or taken, or no folder.

    It has its own exit code: a farm may try again from another machine, or when there is room.
    """

    kind = "output"
    exit_code = 9


class ShotError(ColorcliError):
    """The shot is missing, is empty, or holds no frame that was asked for."""

    kind = "shot"
    exit_code = 3


class KeyImageError(ColorcliError):
    """The key (reference picture) is missing or is no readable picture."""

    kind = "key"
    exit_code = 3


class DataError(ColorcliError):
    """A set of pictures to learn from is missing, is empty, or holds nothing that can be used."""

    kind = "data"
    exit_code = 3


class PresetError(ColorcliError):
    """A preset or a training recipe has an unknown key, a wrong type, or a value out of range."""

    kind = "preset"
    exit_code = 4


class WeightsError(ColorcliError):
    """Model weights are missing, damaged, or of another model."""

    kind = "weights"
    exit_code = 5


class DeviceError(ColorcliError):
    """The device is not there, or one frame does not fit in its memory."""

    kind = "device"
    exit_code = 6


class FrameError(ColorcliError):
    """One frame cannot be read, colored or written; the others go on."""

    kind = "frame"
    exit_code = 7


class TrainingError(ColorcliError):
    """Training cannot go on from here: a loss is no number any more."""

    kind = "training"
    exit_code = 8


class MissingExtraError(ColorcliError):
    """An optional part is not installed; the hint names the extra to install."""

    kind = "usage"
    exit_code = 2
