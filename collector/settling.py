"""Who settles pairs in a collector: with the model and the judge that its routes need."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from collector.embedding import Embedder, Encoder, encoder_folder
from collector.judge import GatewayClient, Judge, gateway_url
from collector.quality import Quality
from router import Config, Events, needs_similarity


@contextlib.asynccontextmanager
async def settling(config: Config, events: Events, gateway: str | None) -> AsyncIterator[Quality]:
    """Who settles pairs, with the model and the judge that the routes need. Raises CollectorError where the model is
    missing, or nobody can know where the gateway is."""
    policies = [policy.quality for policy in config.routes.values()]
    client = embedder = None
    if any(needs_similarity(quality.score) for quality in policies):
        embedder = Embedder((await asyncio.to_thread(Encoder, encoder_folder(config.state))).encode)
    if any(quality.reference == "judge" for quality in policies):
        client = GatewayClient(gateway or gateway_url(config))
    try:
        yield Quality(events, judge=Judge(client) if client else None, encoder=embedder)
    finally:
        if client is not None:
            await client.close()
        if embedder is not None:
            embedder.close()
