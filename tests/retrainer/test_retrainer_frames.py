"""What an app writes around its users' words makes no two requests alike; a flood of one request stays one."""

import random
from collections.abc import Callable

import pytest
from data_route import Route, sides
from retrainer_fakes import CountedLog, fill, interaction

from collector import SubjectKeys
from collector.record import Interaction
from retrainer.data.frames import Frames

DRAW = random.Random(0)
WORDS = ["".join(DRAW.choices("abcdefghijklmnopqrstuvwxyz", k=DRAW.randint(3, 9))) for _ in range(4000)]


def sentences(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + ("." if n % 12 == 11 else "") for n in range(words))


FIRST, SECOND = sentences(1, 180), sentences(2, 200)


def said(n: int) -> str:
    return sentences(1000 + n, 12)


@pytest.fixture
def route(log: CountedLog, keys: SubjectKeys) -> Route:
    return Route(log, keys)


SHAPES: dict[str, Callable[[int], str]] = {
    "one": lambda n: f"{FIRST} Message: {said(n)} Answer with the team's name.",
    "two, half each": lambda n: f"{FIRST if n % 2 else SECOND} Message: {said(n)}",
    "two, one of them rare": lambda n: f"{SECOND if n % 7 == 0 else FIRST} Message: {said(n)}",
    "a number before it": lambda n: f"Ticket {n}: {FIRST} Message: {said(n)}",
    "a number in its midst": lambda n: f"{FIRST} The customer is no. {n}. {SECOND} {said(n)}",
    "the user first, a number last": lambda n: f"{said(n)} {FIRST} Ticket {n}",
    "another each day": lambda n: f"Today is day {n // 50} of the year. {FIRST} {said(n)}",
    "a new one now and then": lambda n: f"{sentences(n // 150, 150)} {said(n)}",
}


def asked(number: int, text: str, *, cluster: str | None = None) -> Interaction:
    messages = [{"role": "user", "content": text}]
    return interaction(number, cluster=cluster or f"c{number}", request={"messages": messages})


@pytest.mark.parametrize("shape", SHAPES)
def test_an_instruction_in_the_users_message_does_not_make_requests_alike(route: Route, shape: str) -> None:
    fill(route.log, [asked(n, SHAPES[shape](n)) for n in range(700)])
    made = route.made()
    assert made.manifest.groups > 700 - 40
    assert made.manifest.counts["train"] == pytest.approx(0.8 * 700, rel=0.1)
    assert made.manifest.counts["test"] > 40
    part, whole = sides(route.made(end=530)), sides(made)
    assert all(whole[name] == side for name, side in part.items() if name in whole)


def test_the_same_words_in_an_instruction_are_near_duplicates(route: Route) -> None:
    shape = SHAPES["a number in its midst"]
    fill(route.log, [asked(n, shape(n)) for n in range(300)])
    fill(route.log, [asked(1000 + n, shape(n).replace(f"no. {n}.", "no. 4077.")) for n in range(100)])
    made = route.made()
    assert made.manifest.groups < 310
    assert made.manifest.counts["train"] + made.manifest.counts["test"] + made.manifest.counts["validation"] == 400


def test_a_flood_of_one_request_stays_one_group(route: Route) -> None:
    fill(route.log, [asked(n, said(n)) for n in range(300)])
    at = f"{sentences(5, 60)} at 12:00:{{}} req-{{:x}}f"
    fill(route.log, [asked(1000 + n, at.format(n, 999331 * n)) for n in range(300)])
    made = route.made(policy={"most_alike": 20})
    assert made.manifest.dropped["near_duplicate"].count >= 270
    assert made.manifest.groups <= 301


def test_the_turns_of_one_conversation_teach_no_frame() -> None:
    frames = Frames([])
    talk = [{"role": "user", "content": sentences(9, 50)}]
    frames.learn({"c1": talk, **{f"c{n}": [{"role": "user", "content": said(n)}] for n in range(2, 40)}})
    assert frames.known == []


def test_a_prompt_that_is_all_instruction_is_compared_as_it_is() -> None:
    known: list[int] = []
    frames = Frames(known)
    frames.learn({str(n): [{"role": "user", "content": SHAPES["one"](n)}] for n in range(40)})
    assert 150 < len(known) < 250
    user = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    assert frames.text(user(f"{FIRST} Message: {said(99)}")) == said(99)
    assert frames.text(user(FIRST)) == FIRST
    assert frames.text(user(f"{FIRST} 4711")) == f"{FIRST} 4711"
    assert Frames(known).text(user(f"{FIRST} hello")) == "hello", "as one that goes on with what was learnt"


def test_scripts_without_spaces_have_frames_too() -> None:
    frames = Frames([])
    instruction = "请判断下面这段客户留言属于哪一个部门并回答部门名称留言是"
    draw = random.Random(3)
    texts = [instruction + "".join(draw.choices("退款账单物流价格安装故障咨询投诉会员积分", k=6)) for _ in range(40)]
    frames.learn({text: [{"role": "user", "content": text}] for text in texts})
    inner = frames.text([{"role": "user", "content": texts[0]}])
    assert inner == " ".join(texts[0].removeprefix(instruction))
