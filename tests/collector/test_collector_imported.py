"""What another system logged becomes training data, scrubbed, and is evidence of nothing."""

from collector_fakes import PlainPool, answer, call, decision, exchange, question, sealing

from collector import Exchange, Happened, Stream, decode_interaction
from collector.assemble import Assembler
from router import Arm, EventKind, Events, RouteEvent, decode_evidence, parse

CONFIG = parse(
    """
    upstreams: {openai: {base_url: "http://x", distillation_allowed: true}}
    engines: {local: {}}
    routes: {support: {teachers: [openai/gpt-4o], student: {}, quality: {score: exact}, outcomes: {window: 100s}}}
    """,
    {},
)
ASKED, SAID, ALSO = question("my SECRET"), answer("yes"), answer("yes")


def made(*, imported: str) -> Exchange:
    """One that would be evidence of everything: eligible, in a service, with a student beside the teacher."""
    served, shadow = call(Arm.TEACHER, SAID), call(Arm.STUDENT, ALSO)
    decided = decision(in_service="v1")
    return exchange(request=ASKED, served=served, shadows=[shadow], decision=decided, imported=imported)


def requests_owed(assembler: Assembler) -> dict[str, int]:
    """What the next tick says of the traffic before it."""
    event = RouteEvent(id="t", at=1.0, route="support", kind=EventKind.TICK, version=None)
    ((_, record),) = assembler.begin(Happened(event=event), b"").now
    told = decode_evidence(record.value)
    assert isinstance(told, RouteEvent)
    return dict(told.data["requests"])


async def test_an_imported_exchange_is_kept_with_its_source_and_makes_no_evidence() -> None:
    heard: list[str] = []
    events = Events()
    events.subscribe(lambda name, fields: heard.append(name))
    assembler = Assembler(CONFIG, PlainPool(), events, sealing=sealing(), clock=lambda: 9e9)
    taken = assembler.begin(made(imported="openai"), ASKED + SAID + ALSO)
    assert taken.now == []
    (later,) = taken.later
    ((stream, record),) = await later
    assert stream is Stream.INTERACTIONS
    kept = decode_interaction(record.value)
    assert (kept.source, kept.arm) == ("openai", Arm.TEACHER)
    assert (kept.at, record.at) == (made(imported="openai").at, 9e9)  # it is kept from now on, however old it is
    assert kept.request["messages"] == [{"role": "user", "content": "my hidden"}]
    assert "collector.imported" in heard
    assert "collector.exchange" not in heard
    assert requests_owed(assembler) == {}


async def test_the_same_exchange_of_this_gateway_is_evidence() -> None:
    assembler = Assembler(CONFIG, PlainPool(), Events(), sealing=sealing())
    taken = assembler.begin(made(imported=""), ASKED + SAID + ALSO)
    found = [record.id for _, record in taken.now]
    assert found == ["x0:error:v1", "x0:latency:v1", "x0:quality:v1", "exposure:v1:c0"]
    assert requests_owed(assembler) == {"2": 1}
    ((stream, record),) = await taken.later[0]
    kept = decode_interaction(record.value)
    assert (stream, kept.source, kept.at) == (Stream.INTERACTIONS, "", record.at)


async def test_what_of_it_can_not_be_scrubbed_is_quarantined() -> None:
    assembler = Assembler(CONFIG, PlainPool(), Events(), sealing=sealing(), clock=lambda: 9e9)
    poison = question("POISON")
    header = exchange(request=poison, served=call(Arm.TEACHER, SAID), imported="openai")
    (later,) = assembler.begin(header, poison + SAID).later
    ((stream, record),) = await later
    assert (stream, record.at) == (Stream.QUARANTINE, 9e9)
    assert b"POISON" not in record.value
