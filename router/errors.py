"""What can go wrong in the router.

RouterError
├── ConfigError        the operator's file is wrong; not worth retrying
├── UnknownVersion     a version id that the registry doesn't hold; not worth retrying
├── Conflict           somebody else wrote first; read again, then retry
└── RegistryUnavailable  the database can't be read or written; may be retried
"""


class RouterError(Exception):
    """An error of the router."""

    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class ConfigError(RouterError):
    """The configuration is wrong."""


class UnknownVersion(RouterError):
    """The registry holds no such version."""


class Conflict(RouterError):
    """The rollout changed between reading and writing it."""

    retryable = True


class RegistryUnavailable(RouterError):
    """The registry can't be reached."""

    retryable = True
