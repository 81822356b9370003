"""What can go wrong in the retrainer.

RetrainerError
├── BaseModelError     the base model isn't here, or isn't what was converted; not worth retrying
├── NotEnoughExamples  the log holds too few usable answers yet; may be retried later
├── TrainingDiverged   the loss is no number any more; not worth retrying with the same settings
├── OutOfMemory        not even one example fits into memory; not worth retrying on this machine
├── Interrupted        told to stop, and everything is stored; to be gone on with
├── CycleError         a cycle's state can't be read, or belongs to other settings; not worth retrying
├── LaunchBroke        the processes of a shared training ended, and none said why; may be retried
├── CycleBusy          another process works on the same cycle; may be retried
└── PhaseElsewhere     the next phase is another process's; retried there
"""


class RetrainerError(Exception):
    """An error of the retrainer."""

    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class BaseModelError(RetrainerError):
    """The base model can't be used."""


class NotEnoughExamples(RetrainerError):
    """The log holds too few usable answers. `end`: the log offset up to which it was read."""

    retryable = True

    def __init__(self, message: str | None = None, *, end: int = 0) -> None:
        super().__init__(message)
        self.end = end


class TrainingDiverged(RetrainerError):
    """The loss is no number any more."""


class OutOfMemory(RetrainerError):
    """A training doesn't fit into memory."""


class Interrupted(RetrainerError):
    """The process was told to stop; the training goes on from its checkpoint."""

    retryable = True


class CycleError(RetrainerError):
    """A cycle's state can't be used."""


class LaunchBroke(RetrainerError):
    """The processes of a shared training ended, and none said why."""

    retryable = True


class CycleBusy(RetrainerError):
    """Another process works on this cycle."""

    retryable = True


class PhaseElsewhere(RetrainerError):
    """The cycle's next phase is another process's to do."""

    retryable = True
