"""The one exception family of the package: what went wrong, where, and what to do about it."""

__all__ = [
    "DataError",
    "DownloadError",
    "EngineError",
    "FolderInUseError",
    "FormatError",
    "InterruptedRunError",
    "PruneError",
    "SurgeryError",
]


class PruneError(Exception):
    """Base of every error that a user can cause or mend; the command line prints it and exits 1."""


class FormatError(PruneError):
    """A file is not what it should be: truncated, of another type, or against its own schema."""


class SurgeryError(PruneError):
    """A net and its weights do not fit together, or a layer cannot be pruned as asked."""


class DataError(PruneError):
    """A data set is missing, incomplete or does not have the checksum it must have."""


class DownloadError(DataError):
    """Nothing could be downloaded: there is no network, or no mirror has the file."""


class EngineError(PruneError):
    """An engine failed to train or test; the message carries the engine's own sentence."""


class FolderInUseError(PruneError):
    """Another process works in the folder of a run."""


class InterruptedRunError(PruneError):
    """The user stopped a run; its state is on disk and the same command goes on from there."""
