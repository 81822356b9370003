"""What can go wrong when Retort starts or is steered; each is shown as one message, without a traceback.

StartError
└── AlreadyRunning  another Retort uses the same state folder
"""


class StartError(Exception):
    """Retort can't start or can't do what was asked; the message says what would be right."""


class AlreadyRunning(StartError):
    """Another Retort already uses this state folder."""
