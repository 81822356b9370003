"""The configuration's routes, prepared once: which request takes which route, and whom a route may call."""

from collections.abc import Mapping

import msgspec

from gateway.errors import UnknownModel
from gateway.upstream import Target
from router import Arm, Config, Rollout, RoutePolicy

# Below this a whole parse costs nothing; above, only requests that a student could take are parsed whole.
PARSE_WHOLE_BYTES = 64 << 10
# Of a teacher's patience, so that a student that hangs leaves the teacher time to answer.
STUDENT_SHARE = 0.25
STUDENT_CONNECT_SECONDS = 2.0


class Callee(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who can answer. `model`: the teacher's own name of it, as JSON; None leaves the body as it is.

    `fixed`: headers that are always sent. `passthrough`: the client's own key goes on. `timeout`: seconds to a whole
    plain answer, or to a stream's first real chunk and from then on between two of its bytes.
    """

    arm: Arm
    target: Target
    timeout: float
    version: str | None = None
    upstream: str | None = None
    model: str | None = None
    model_json: bytes = b""
    fixed: Mapping[str, str] = {}
    passthrough: bool = False

    @property
    def name(self) -> str:
        """What the client is told of who served: teacher, or the version."""
        return self.version or "teacher"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route. `deadline`: seconds that all attempts of a request may take together until the first byte.
    `unrolled`: the rollout of a route that the registry knows nothing of yet.
    """

    name: str
    policy: RoutePolicy
    teachers: tuple[Callee, ...]
    deadline: float
    unrolled: Rollout

    def student(self, version: str, url: str) -> Callee:
        """The callee for a version that an engine serves at `url`."""
        timeout = self.teachers[0].timeout * STUDENT_SHARE
        return Callee(
            arm=Arm.STUDENT,
            target=Target(f"{url}/chat/completions", STUDENT_CONNECT_SECONDS),
            timeout=timeout,
            version=version,
        )


class Routes:
    """Finds the route of a model name: a route's own name, or a name that it claims."""

    def __init__(self, config: Config) -> None:
        self._by_model: dict[str, Route] = {}
        self._routes: list[Route] = []
        for name, policy in config.routes.items():
            route = _route(name, policy, config)
            self._routes.append(route)
            for model in (name, *policy.claims):
                self._by_model[model] = route
        students = [policy.student.max_prompt_bytes for policy in config.routes.values() if policy.student]
        self.whole_up_to = max([PARSE_WHOLE_BYTES, *students])

    @property
    def models(self) -> list[str]:
        """All names that a client may ask for, sorted."""
        return sorted(self._by_model)

    @property
    def only(self) -> Route | None:
        """The route, where there is exactly one."""
        return self._routes[0] if len(self._routes) == 1 else None

    def find(self, model: str) -> Route:
        """Raises UnknownModel, which names the known ones."""
        route = self._by_model.get(model)
        if route is None:
            shown = model if len(model) <= 100 else model[:100] + "..."
            raise UnknownModel(
                f"The model {shown!r} is not served here; known are: {', '.join(self.models)}.", param="model"
            )
        return route


def _route(name: str, policy: RoutePolicy, config: Config) -> Route:
    teachers = []
    for teacher in policy.teachers:
        upstream, _, model = teacher.partition("/")
        settings = config.upstreams[upstream]
        passthrough = settings.api_key == "passthrough"
        teachers.append(
            Callee(
                arm=Arm.TEACHER,
                target=Target(f"{settings.base_url}/chat/completions", settings.connect_timeout),
                timeout=settings.timeout,
                upstream=teacher,
                model=model,
                model_json=msgspec.json.encode(model),
                fixed={} if passthrough else {"authorization": f"Bearer {settings.api_key}"},
                passthrough=passthrough,
            )
        )
    return Route(
        name=name,
        policy=policy,
        teachers=tuple(teachers),
        deadline=sum(teacher.timeout for teacher in teachers),
        unrolled=Rollout(route=name),
    )
