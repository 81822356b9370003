"""What a cycle brings to the build of its data set: the encoder of the state folder, and the teacher, whom the gateway
asks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from collector.embedding import Encoder, encoder_folder
from collector.judge import ANSWER_SECONDS, GatewayClient, gateway_url
from exporters.models.encoder_onnx import ensure_encoder
from retrainer.data.consistency import Again, Second
from retrainer.data.curate import unserved
from retrainer.data.joined import joined_file
from retrainer.data.meanings import Encode
from retrainer.data.options import Options
from retrainer.data.suite import suite_file
from retrainer.progress import Progress
from retrainer.scoring import scorer
from router.config import Config
from router.policy import RoutePolicy


def options(
    config: Config, route: str, policy: RoutePolicy, work: Path, progress: Progress, *, held_out: str | None = None
) -> Options:
    """By the configuration and the route's policy. `held_out`: the file to judge by, in place of the policy's. Raises
    CollectorError, ArtefactError."""
    data, held_out = policy.retrain.data, held_out or policy.retrain.held_out
    return Options(
        policy=data,
        work=work,
        teachers=tuple(t for t in policy.teachers if config.may_teach(t)),
        tools=policy.learns_tools,
        unserved=unserved(policy),
        suite=suite_file(config.state, route) if data.regression else None,
        joined=joined_file(config.state, route),
        held_out=Path(held_out) if held_out is not None else None,
        encode=_encode(config) if data.semantic is not None else None,
        second=_second(config, route, policy, progress),
        progress=progress,
    )


def _encode(config: Config) -> Encode:
    folder = encoder_folder(config.state)
    ensure_encoder(folder)
    return Encoder(folder).encode


def _second(config: Config, route: str, policy: RoutePolicy, progress: Progress) -> Second | None:
    consistency = policy.retrain.data.consistency
    if consistency is None:
        return None
    url, asked = gateway_url(config), config.origin(config.routes[consistency.route].teachers[0])

    @asynccontextmanager
    async def asking() -> AsyncIterator[Again]:
        client = GatewayClient(url, seconds=ANSWER_SECONDS)
        try:
            yield lambda e: client(consistency.route, e.messages, parameters=e.parameters)
        finally:
            await client.close()

    return Second(
        asking=asking,
        score=scorer(policy.quality.score, config.state),
        teachers=[t for t in policy.teachers if config.origin(t) == asked],
        kept=Path(config.state) / "consistency" / f"{route.encode().hex()}.db",
        named=f"{consistency.route} {policy.measure}",
        progress=progress,
    )
