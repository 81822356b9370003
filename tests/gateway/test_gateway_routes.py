"""Which request takes which route, and what a route's callees are."""

import pytest
from gateway_fakes import STUDENT, settings

from gateway.errors import UnknownModel
from gateway.routes import Routes
from router import Arm

CONFIG = settings("http://127.0.0.1:9/v1", second="http://127.0.0.1:10/v1", timeout="8s")


def test_a_route_is_found_by_its_name_and_by_what_it_claims() -> None:
    routes = Routes(CONFIG)
    assert routes.models == ["gpt-4o", "support"]
    assert routes.find("support") is routes.find("gpt-4o")
    with pytest.raises(UnknownModel) as caught:
        routes.find("x" * 5000)
    assert len(str(caught.value)) < 250


def test_teachers_stand_in_fallback_order_and_share_one_deadline() -> None:
    route = Routes(CONFIG).find("support")
    assert [teacher.target.url for teacher in route.teachers] == [
        "http://127.0.0.1:9/v1/chat/completions",
        "http://127.0.0.1:10/v1/chat/completions",
    ]
    assert [teacher.name for teacher in route.teachers] == ["teacher", "teacher"]
    assert route.deadline == 16.0


def test_a_student_is_called_at_its_versions_own_path_with_a_quarter_of_the_teachers_patience() -> None:
    student = Routes(CONFIG).find("support").student(STUDENT, "http://engine/versions/v/v1")
    assert (student.arm, student.name, student.timeout) == (Arm.STUDENT, STUDENT, 2.0)
    assert student.target.url == "http://engine/versions/v/v1/chat/completions"
    assert student.fixed == {}


def test_a_changed_policy_has_another_version_also_as_a_copy() -> None:
    policy = CONFIG.routes["support"]
    version = policy.version
    assert policy.model_copy().version == version
    assert policy.model_copy(update={"claims": ("other",)}).version != version
