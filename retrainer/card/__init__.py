"""The model card of each version, in the spirit of Mitchell et al. 2019: what it is, how good, how safe, where weak."""

from retrainer.card.content import Facts, Point
from retrainer.card.write import HTML, MARKDOWN, write_card

__all__ = ["HTML", "MARKDOWN", "Facts", "Point", "write_card"]
