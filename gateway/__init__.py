from gateway.errors import CannotListen, GatewayError, PortInUse

__all__ = ["CannotListen", "GatewayError", "PortInUse"]
