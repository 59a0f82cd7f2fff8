"""Every error sfumato raises on purpose; each carries the exit code that the command line returns for it."""


class SfumatoError(Exception):
    """Base of all errors raised on purpose. Its message is one sentence for the user."""

    exit_code = 1


class InputError(SfumatoError):
    """The user's audio, gap, path or setting can't be used: says what was given, what is possible, what to do."""

    exit_code = 3


class ModelError(SfumatoError):
    """A checkpoint folder is missing, broken, foreign or of another version."""

    exit_code = 3


class CalibrationError(SfumatoError):
    """An interval can't be promised with the calibration data at hand."""

    exit_code = 3


class MissingExtraError(SfumatoError):
    """An optional library is not installed; names the extra that brings it."""

    exit_code = 3

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"This needs {library}. Install it with: pip install 'sfumato[{extra}]'")


class ResourceError(SfumatoError):
    """Disk, memory or permission ran out; nothing was left half-written."""

    exit_code = 4
