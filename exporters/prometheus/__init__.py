from exporters.prometheus.page import render, subscriber
from exporters.prometheus.subscribe import Subscriber

__all__ = ["Subscriber", "render", "subscriber"]
