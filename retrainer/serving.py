"""What will serve a route's student, as far as making it depends on that."""

import msgspec

from router.config import Config
from router.policy_student import StudentPolicy


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """`runtime`: of the engine: onnxruntime | vllm. `adapters`: whether students are adapters on a base that the engine
    has loaded already."""

    runtime: str = "onnxruntime"
    adapters: bool = False


def serving(config: Config, student: StudentPolicy) -> Serving:
    """As the student's engine is configured."""
    engine = config.engines[student.engine]
    return Serving(runtime=engine.runtime, adapters=engine.vllm.adapters_on is not None)
