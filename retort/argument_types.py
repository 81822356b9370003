"""What numbers a command line takes. Each raises ArgumentTypeError, which says what would be right."""

import argparse


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def positive(text: str) -> float:
    """An argument above 0."""
    found = number(text)
    if not 0.0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
    return found


def cost(text: str) -> float:
    """An argument in USD."""
    found = number(text)
    if not 0.0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"must be USD, 0 or more; got {text}")
    return found


def share(text: str) -> float:
    """An argument from 0 to 1."""
    found = number(text)
    if not 0.0 <= found <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to 1, for example 0.05; got {text}")
    return found


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {text}")
    return int(text)


def port(text: str) -> int:
    """A TCP port."""
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535; got {text}")
    return int(text)
