"""Labelling, without a collector: what is kept of what broke off, and what ends a run."""

from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from test_bootstrap_tasks import SALT, SCENARIOS, Gateway, answered, plays

from retort.bootstrap.labelling import FAILED_IN_A_ROW, Done, Labelling, Told
from retort.bootstrap.prompts import key_of, read_prompts
from retort.bootstrap.scenarios import read_scenarios
from retort.errors import StartError
from retort.imports.exchange import Target
from router.policy import RoutePolicy


class Kept:
    """Stands for the way to the collector; `exchanges`: that it got."""

    def __init__(self, state: str) -> None:
        self.durable = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def send(self, exchange: Any) -> None:
        exchanges.append(exchange[0])

    async def settle(self) -> None:
        self.durable = len(exchanges)


exchanges: list[Any] = []


@pytest.fixture(autouse=True)
def intake(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanges.clear()
    monkeypatch.setattr("retort.bootstrap.labelling.Intake", Kept)


async def label(folder: Path, gateway: Gateway, tasks: list[Any]) -> Told:
    policy = RoutePolicy.model_validate({"teachers": ["up/m"], "student": {}})
    target = Target(
        route="shop", policy=policy, format="bootstrap", teacher="up/m", allowed=("up/m",), salt=SALT, now=1.0
    )
    keyed = {key_of(task, "up/m", SALT): task for task in tasks}
    done = Done(folder / "shop.done")
    told = Told(route="shop", teacher="up/m", tasks=len(keyed), before=sum(key in done for key in keyed))
    new = {key: task for key, task in keyed.items() if key not in done}
    try:
        await Labelling(gateway.teacher(), target, done, told, temperature=0.3, most=2).run(str(folder), new)
    finally:
        done.close()
    return told


def prompts(folder: Path, lines: int) -> list[Any]:
    file = folder / "prompts.txt"
    file.write_text("".join(f"question {n}\n" for n in range(lines)))
    return list(read_prompts(str(file), "lines", None))


async def test_a_conversation_that_broke_off_is_kept_and_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIOS)
    talk = next(read_scenarios(str(file)))
    answers = 0

    def breaking(body: dict[str, Any]) -> Any:
        nonlocal answers
        answers += body["messages"][0]["content"] == "You sell shoes."
        return httpx.Response(400) if answers == 2 else plays(body)

    told = await label(tmp_path, Gateway(breaking), [talk])
    assert (told.labelled, told.left_out, told.exchanges) == (0, {"http_400": 1}, 1)
    answers = 5
    told = await label(tmp_path, Gateway(breaking), [talk])
    assert (told.before, told.labelled, told.left_out) == (0, 1, {})
    told = await label(tmp_path, Gateway(breaking), [talk])
    assert (told.before, told.labelled) == (1, 0)


async def test_an_answer_that_can_not_be_kept_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIOS)
    talk = next(read_scenarios(str(file)))
    empty = iter([False, True])

    def sometimes(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] == "You sell shoes." and next(empty, False):
            return {"role": "assistant", "content": ""}
        return plays(body)

    told = await label(tmp_path, Gateway(sometimes), [talk])
    assert (told.labelled, told.left_out) == (1, {})
    assert told.exchanges == len(exchanges) > 1


async def test_prompts_that_are_refused_one_by_one_end_no_run_if_others_are_answered(tmp_path: Path) -> None:
    some = prompts(tmp_path, 2 * FAILED_IN_A_ROW)

    def refused(body: dict[str, Any]) -> Any:
        number = int(body["messages"][-1]["content"].split()[-1])
        return httpx.Response(400) if 1 < number < FAILED_IN_A_ROW + 7 else answered("yes")

    told = await label(tmp_path, Gateway(refused), some)
    assert told.left_out == {"http_400": FAILED_IN_A_ROW + 5}
    assert told.labelled == FAILED_IN_A_ROW - 5
    told.left_out.clear()
    all_wrong = Gateway(httpx.Response(400))  # a temperature that the model doesn't take, say
    with pytest.raises(StartError, match="20 in a row were not answered, the last one: http_400"):
        await label(tmp_path / "other", all_wrong, some)
    assert len(all_wrong.asked) <= FAILED_IN_A_ROW + 2


async def test_what_was_answered_before_a_run_ended_is_kept(tmp_path: Path) -> None:
    some = prompts(tmp_path, 3 * FAILED_IN_A_ROW)

    def forbidden(body: dict[str, Any]) -> Any:
        number = int(body["messages"][-1]["content"].split()[-1])
        return answered("yes") if number < 5 else httpx.Response(401)

    gateway = Gateway(forbidden)
    with pytest.raises(StartError, match="20 in a row were not answered, the last one: http_401"):
        await label(tmp_path, gateway, some)
    assert len(gateway.asked) <= 5 + FAILED_IN_A_ROW + 2
    told = await label(tmp_path, Gateway("yes"), some)
    assert told.before == 5
    assert len({header.id for header in exchanges}) == len(exchanges) == len(some)


def test_two_at_once_would_both_pay(tmp_path: Path) -> None:
    done = Done(tmp_path / "shop.done")
    with pytest.raises(StartError, match="another `retort bootstrap` labels this route"):
        Done(tmp_path / "shop.done")
    done.close()
    Done(tmp_path / "shop.done").close()


async def test_who_has_it_labelled_anew_gets_new_exchanges(tmp_path: Path) -> None:
    some = prompts(tmp_path, 3)
    await label(tmp_path, Gateway("yes"), some)
    (tmp_path / "shop.done").unlink()
    told = await label(tmp_path, Gateway("no"), some)
    assert told.labelled == 3
    assert len({header.id for header in exchanges}) == 6
