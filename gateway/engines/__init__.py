"""The student server: versions in worker processes of their own, reached over HTTP alone. `agent.run` starts it."""

from gateway.engines.errors import CannotListen, EngineError, NotReady

__all__ = ["CannotListen", "EngineError", "NotReady"]
