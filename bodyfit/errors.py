"""The errors a user can cause, each naming the field, what was expected and what came.

An outcome of a fit is data (`StopReason`), not an exception: these are for bad input and for what the machine refuses.
"""

from __future__ import annotations

from typing import Any


class BodyfitError(Exception):
    """Base of every error that bodyfit raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process hands its errors over pickled; what Exception would call again is the message alone
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[BodyfitError], args: tuple[Any, ...], values: dict[str, Any]) -> BodyfitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(values)
    return error


class InputError(BodyfitError):
    """Something given to bodyfit is not what it must be; the command line ends with exit code 2.

    Args:
        field: what is wrong, as the user knows it (a file, a key, an option).
        expected: what it must be.
        found: what came.
        hint: what to do about it, where that is known.
    """

    exit_code = 2

    def __init__(self, field: str, expected: str, found: str, hint: str | None = None) -> None:
        self.field, self.expected, self.found, self.hint = field, expected, found, hint
        text = f"{field}: expected {expected}, found {found}"
        super().__init__(f"{text} ({hint})" if hint else text)


class RecordingError(InputError):
    """A recording's files or their contents are not what the format says."""


class ImageError(RecordingError):
    """An image file is missing, broken, of the wrong kind or of the wrong size."""


class CameraError(InputError):
    """Intrinsics, distortion or a rigid transform make no sense."""


class FrameError(InputError):
    """A frame's arrays do not fit its cameras or one another."""


class DepthUnitError(FrameError):
    """The depth can only be in another unit: the person would be millimetres or kilometres away."""


class PersonNotFoundError(InputError):
    """No human-sized standing thing was found in the frame."""


class SeveralPeopleError(InputError):
    """More than one person stands in the frame and none was chosen."""

    def __init__(self, field: str, expected: str, found: str, hint: str | None = None, *, count: int) -> None:
        self.count = count
        super().__init__(field, expected, found, hint)


class ModelFileError(InputError):
    """A body file is not a SMPL-format body, or is one that would run code when read."""


class OutputError(InputError):
    """The results cannot be written where they were asked for."""


class DeviceError(InputError):
    """The device that was asked for cannot be used."""


class DeviceMemoryError(BodyfitError):
    """A batch does not fit into the device's memory; a smaller one may."""


class DeviceLostError(BodyfitError):
    """The device does not answer any more (a fault, a reset, its process gone); in this process it will not again."""

    exit_code = 4


class MissingExtraError(BodyfitError):
    """An optional dependency is not installed; the message says which extra brings it."""

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'bodyfit[{extra}]'")
