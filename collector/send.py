"""Sending frames to the collector: for servers without ever waiting, for commands with a wait for the answer."""
