"""What is asked: prompts of a file, scenarios in which the teacher plays the user, and how the gateway is asked."""

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from retort.bootstrap.command import BootstrapOptions, tasks
from retort.bootstrap.estimate import Estimate
from retort.bootstrap.labelling import Told
from retort.bootstrap.prompts import form_of, key_of, read_prompts
from retort.bootstrap.scenarios import MOST_CALLS, read_scenarios
from retort.bootstrap.teacher import ATTEMPTS, LONGEST_PAUSE, Teacher, Unreachable
from retort.errors import StartError
from retort.imports import Unusable

ROOT = Path(__file__).parents[2]
SALT = bytes(32)


class Gateway:
    """What the teacher is asked, and answers: `reply` gets the request's body."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.pauses: list[float] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        self.headers.append(request.headers)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            reply = reply(body)
        return reply if isinstance(reply, httpx.Response) else answered(reply)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def teacher(self) -> Teacher:
        return Teacher("http://gateway", "labels", transport=httpx.MockTransport(self.handle), pause=self.pause)


def answered(message: str | dict[str, Any]) -> httpx.Response:
    message = {"role": "assistant", "content": message} if isinstance(message, str) else message
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return httpx.Response(200, json={"model": "m-1", "choices": [choice], "usage": usage})


async def test_what_may_pass_is_asked_again_later_each_time_or_when_the_provider_says() -> None:
    gateway = Gateway(
        httpx.Response(503), httpx.ReadTimeout("slow"), httpx.Response(429, headers={"retry-after": "7"}), "yes"
    )
    teacher = gateway.teacher()
    reply = await teacher([{"role": "user", "content": "Well?"}], temperature=0.3)
    assert (reply.message["content"], reply.model, teacher.calls) == ("yes", "m-1", 1)
    assert len(gateway.pauses) == 3
    assert 0.25 <= gateway.pauses[0] <= 0.75
    assert 0.5 <= gateway.pauses[1] <= 1.5
    assert gateway.pauses[2] == 7.0
    assert gateway.asked[0] == {
        "model": "labels", "messages": [{"role": "user", "content": "Well?"}], "temperature": 0.3,
    }  # fmt: skip
    assert {headers["x-retort-consent"] for headers in gateway.headers} == {"no"}


@pytest.mark.parametrize(
    ("reply", "error", "says", "times"),
    [
        (httpx.Response(400), Unusable, "http_400", 1),
        (httpx.Response(502), Unusable, "failed", ATTEMPTS),
        (httpx.ReadTimeout("slow"), Unusable, "timeout", ATTEMPTS),
        (httpx.ConnectError("refused"), Unreachable, "no gateway answers at http://gateway", ATTEMPTS),
        (httpx.Response(200, text="<html>"), Unusable, "no_answer", 1),
    ],
)
async def test_what_will_not_pass_has_a_reason(reply: Any, error: type[Exception], says: str, times: int) -> None:
    gateway = Gateway(reply)
    with pytest.raises(error, match=says):
        await gateway.teacher()([{"role": "user", "content": "Well?"}])
    assert len(gateway.asked) == times
    assert max(gateway.pauses, default=0.0) <= 1.5 * LONGEST_PAUSE


def test_prompts_are_lines_or_messages_and_get_the_system_prompt_that_they_lack(tmp_path: Path) -> None:
    lines, messages = tmp_path / "p.txt", tmp_path / "p.jsonl"
    lines.write_text("one\n\n  two \n")
    messages.write_text(
        '{"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "a"}], "seed": 1, "x": 1}\n'
        '{"messages": [{"role": "user", "content": "b"}]}\n'
    )
    assert (form_of("p.txt"), form_of("p.jsonl.gz"), form_of("p.yml")) == ("lines", "messages", "scenarios")
    found = list(read_prompts(str(lines), "lines", "S"))
    assert [[m["content"] for m in p.messages] for p in found] == [["S", "one"], ["S", "two"]]
    own, other = read_prompts(str(messages), "messages", "S")
    assert ([m["content"] for m in own.messages], own.parameters) == (["own", "a"], {"seed": 1})
    assert [m["content"] for m in other.messages] == ["S", "b"]
    messages.write_text('{"messages": [{"role": "assistant", "content": "b"}]}\n')
    with pytest.raises(StartError, match="line 1: not_the_users_last"):
        list(read_prompts(str(messages), "messages", None))


GOOD = '{"messages": [{"role": "user", "content": "a"}]}'


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", "just words\nof a person, two\n", r"line 1 is no JSON; a line is \{\"messages\".* --form lines"),
        ("p.jsonl", "prompt,answer\na,b\n", "line 1 is no JSON"),
        ("p.jsonl", f"{GOOD}\n\nwords\n", r"line 3: it is no JSON; a line is \{\"messages\": \[...\]\}, the user's"),
        ("p.jsonl", f"{GOOD}\n[1]\n", "line 2: it is no JSON object"),
        ("p.json", f"[{GOOD}, 7]", "record 2: it is no JSON object"),
        ("p.jsonl", f"{GOOD}\n{{}}\n", "line 2: no_messages"),
        ("p.csv", "prompt,answer\na,b\n", "from no table: write one a line, or JSON lines of"),
        ("p.jsonl", "", "it holds no prompt; write one a line, or JSON lines"),
        ("p.txt", "\n", "it holds no prompt"),
        ("p.yaml", "", "examples/bootstrap/voice.yaml is one to copy"),
    ],
)
def test_what_is_no_file_of_prompts_is_told_with_its_line_and_what_it_should_be(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StartError, match=says):
        tasks(str(tmp_path / name), BootstrapOptions())


def test_a_task_is_known_again_by_what_it_says_and_by_whom_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("one\ntwo\none\n")
    keys = [key_of(p, "up/m", SALT) for p in read_prompts(str(file), "lines", None)]
    assert keys[0] == keys[2] != keys[1]
    first = next(read_prompts(str(file), "lines", None))
    assert key_of(first, "up/other", SALT) != keys[0]
    assert key_of(first, "up/m", b"1" * 32) != keys[0], "nobody without the salt can try texts"


SCENARIOS = """
system: You sell shoes.
channel: voice
turns: [2, 2]
tone: [angry]
tools: [{type: function, function: {name: stock}}]
categories:
  returns: {quota: 2, about: "shoes"}
  size: 1
"""


def plays(body: dict[str, Any]) -> str | dict[str, Any]:
    """The user asks, the tool is called once a turn, and the assistant answers."""
    task, last = body["messages"][0]["content"], body["messages"][-1]
    if task.startswith("You play a person"):
        return f"question {len(json.loads(last['content']))}"
    if task.startswith("You stand in"):
        return '{"pairs": 3}'
    if last["role"] == "tool":
        return f"answer to {body['messages'][-3]['content']}"
    call = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def test_in_a_scenario_the_teacher_plays_user_and_tool_and_only_its_own_answers_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIOS)
    talks = list(read_scenarios(str(file)))
    assert [(t.category, t.number) for t in talks] == [("returns", 1), ("size", 1), ("returns", 2)]
    gateway = Gateway(plays)
    found = await talks[0].run(gateway.teacher(), 0.3, "session")
    users = [b for b in gateway.asked if "You play a person" in b["messages"][0]["content"]]
    assert all(part in users[0]["messages"][0]["content"] for part in ("returns (shoes)", "angry", "on the phone"))
    assert users[0]["temperature"] == 1.0
    assert json.loads(users[1]["messages"][1]["content"])[-1]["content"] == "answer to question 0"
    assert [bool(f.answer.get("tool_calls")) for f in found] == [True, False, True, False]
    assert found[-1].answer["content"] == "answer to question 4"
    assert [m["role"] for m in found[-1].messages] == [
        "system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool",
    ]  # fmt: skip
    assert {(f.parameters["temperature"], len(f.parameters["tools"]), f.session) for f in found} == {
        (0.3, 1, "session")
    }
    assert len({f.id for f in found}) == 4
    assert "You play" not in repr([f.messages for f in found])


async def test_a_scenario_ends_when_the_user_has_nothing_left_to_say_and_when_tools_are_called_for_ever(
    tmp_path: Path,
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIOS)
    talk = next(read_scenarios(str(file)))

    def short(body: dict[str, Any]) -> Any:
        ended = "You play" in body["messages"][0]["content"] and len(json.loads(body["messages"][1]["content"])) > 1
        return "[END]" if ended else plays(body)

    assert len(await talk.run(Gateway(short).teacher(), None, "s")) == 2
    calls = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "stock"}}]}
    endless = Gateway(lambda body: calls if body["messages"][0]["content"] == "You sell shoes." else "again")
    assert len(await talk.run(endless.teacher(), None, "s")) == MOST_CALLS + 1
    with pytest.raises(Unusable, match="no_user"):
        await talk.run(Gateway("[END]").teacher(), None, "s")


@pytest.mark.parametrize("name", ["voice", "support"])
def test_the_examples_can_be_read_and_estimated(name: str) -> None:
    talks = list(read_scenarios(str(ROOT / f"examples/bootstrap/{name}.yaml")))
    assert len(talks) == {"voice": 3000, "support": 800}[name]
    assert len({key_of(t, "up/m", SALT) for t in talks}) == len(talks)
    sizes = [t.size(100.0) for t in talks]
    assert all(size.answers == size.said >= 1.0 for size in sizes)
    assert min(size.prompt_tokens for size in sizes) > 100.0
    assert {t.offers_tools for t in talks} == {name == "support"}


def test_who_pays_for_tools_that_no_student_learns_is_told_before() -> None:
    made = Estimate(
        teacher="up/m", calls=2, prompt_tokens=9, completion_tokens=9, usd=None, answer_tokens=9, source="given"
    )
    told = Told(route="shop", teacher="up/m", tasks=1, before=0)
    assert not any("tools" in line for line in made.lines(told))
    lines = msgspec.structs.replace(made, not_learnt=1).lines(told)
    assert any("1 of them have tools, which students of shop don't learn to call" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("categories: {a: 0}", "categories.a.quota: Input should be greater than 0"),
        ("categories: {a: 1}\nturns: [3, 1]", "the fewest come first"),
        (
            "categories: {a: {quota: 1, tune: x}}",
            r"categories\.a\.tune: unknown key; a file has system, .*, a category quota, about, turns, tone, tools",
        ),
        ("{", "can't be read"),
    ],
)
def test_scenarios_that_can_not_be_say_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(StartError, match=says):
        list(read_scenarios(str(file)))


async def test_how_a_recorded_request_was_delivered_is_not_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "n": 2, "temperature": 0.9}
    file.write_text(json.dumps(asked) + "\n")
    gateway = Gateway("yes")
    (prompt,) = read_prompts(str(file), "messages", None)
    await prompt.run(gateway.teacher(), 0.3, "s")
    assert gateway.asked == [{"model": "labels", "messages": asked["messages"], "temperature": 0.9}]
