"""A wrong configuration is refused whole, with a line that names the key and says what would be right."""

import re
from pathlib import Path

import pytest

from router import Config, ConfigError, RoutePolicy, json_schema, parse

GOOD = """
upstreams:
  openai: {base_url: "https://api.openai.com/v1", api_key: "${KEY}", distillation_allowed: true}
engines: {local: {}}
routes:
  support: {teachers: [openai/gpt-4o], claims: [gpt-4o], student: {}}
"""


def refused(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text, {"KEY": "k", **environ})
    return str(error.value)


def test_a_good_file_gets_the_documented_defaults() -> None:
    config = parse(GOOD, {"KEY": "sk-1"})
    assert config.upstreams["openai"].api_key == "sk-1"
    assert config.log == "sqlite:///.retort/log.db"
    policy = config.routes["support"]
    assert (policy.quality.margin, policy.rollout.min_dwell, policy.latency.block) == (0.07, 86400.0, 10.0)


def test_an_engine_has_room_for_the_routes_that_it_serves() -> None:
    assert parse(GOOD, {"KEY": "k"}).engines["local"].max_loaded == 3
    more = "".join(f"  r{n}: {{teachers: [openai/gpt-4o], student: {{}}}}\n" for n in range(4))
    assert parse(GOOD + more, {"KEY": "k"}).engines["local"].max_loaded == 7
    given = GOOD.replace("{local: {}}", "{local: {max_loaded: 5}}") + more
    assert parse(given, {"KEY": "k"}).engines["local"].max_loaded == 5


def test_a_student_may_be_a_recipes_name_alone() -> None:
    short, long = (
        parse(GOOD.replace("student: {}", f"student: {said}"), {"KEY": "k"}) for said in ("auto", "{recipe: auto}")
    )
    assert short == long
    assert short.routes["support"].version == long.routes["support"].version


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("student: {}", "studnet: {}", "routes.support.studnet", "unknown key"),
        ("student: {}", "quality: {margin: 2}", "routes.support.quality.margin", "less than 1; got 2"),
        ("student: {}", "latency: {block: 10 parsecs}", "routes.support.latency.block", "for example 10s"),
        ("student: {}", "rollout: {steps: [0.5, 0.1]}", "routes.support.rollout", "steps must rise"),
        ("student: {}", "rollout: {steps: [0.5, 1.5]}", "routes.support.rollout.steps.1", "less than or equal to 1"),
        ("student: {}", "rollout: {holdback: 0.7}", "routes.support.rollout", "under 0.5; got 0.7"),
        (
            "student: {}",
            "student: {}, rollout: {holdback: 0}, quality: {audit_rate: 0}",
            "routes.support: rollout.holdback and quality.audit_rate are both 0",
            "for example audit_rate: 0.05",
        ),
        (
            "student: {}",
            "student: {}, quality: {shadow_rate: 0}",
            "routes.support: quality.shadow_rate is 0",
            "for example shadow_rate: 1.0",
        ),
        (
            "student: {}",
            "student: {recipe: hidden}, retrain: {launch: several.yaml}",
            "routes.support: retrain.launch: the recipe hidden trains in one process",
            "leave it out, or take one of the recipes lora, qlora, full, auto",
        ),
        (
            "student: {}",
            "student: {recipe: linear}, retrain: {packing: true}",
            "routes.support: retrain.packing: the recipe linear doesn't train a language model",
            "leave it out",
        ),
        (
            "student: {}",
            "student: {recipe: encoder}, retrain: {batch_size: 8}",
            "routes.support: retrain.batch_size: the recipe encoder doesn't look at it",
            "retrain.closed says how it trains",
        ),
        ("student: {}", "student: best", "routes.support.student.recipe", "'auto'"),
        ("student: {}", "capture: {scrub: {NAME: drop}}", "routes.support.capture.scrub", "there are default, AGE,"),
        ("student: {}", "capture: {scrub: {CITY: mask}}", "routes.support.capture.scrub.CITY", "'placeholder'"),
        ("student: {}", "capture: {scrub: {default: keep}}", "routes.support.capture.scrub", "name each kind"),
        ("student: {}", "capture: {scrub: {SECRET: keep}}", "routes.support.capture.scrub", "never stay in the log"),
        ("student: {}", "capture: {languages: [xx]}", "routes.support.capture.languages.0", "'en', 'de'"),
        ("student: {}", "selective: {max_risk: 0.6}", "routes.support.selective.max_risk", "less than or equal to 0.5"),
        (
            "student: {}",
            "errors: {promote_below: 0.02, rollback_above: 0.01}",
            "routes.support.errors",
            "promote_below 0.02 is above rollback_above 0.01",
        ),
        (
            "student: {}",
            "student: {}, rollout: {min_requests: 900}, quality: {n_max: 500}",
            "routes.support: rollout.min_requests is 900",
            "give min_requests at most as many",
        ),
        (
            "student: {}",
            "quality: {score: [{score: exact}, {score: exact, weight: 2}]}",
            "routes.support.quality",
            "score names exact more than once",
        ),
        ("student: {}", "rollout: {min_dwell: .inf}", "routes.support.rollout.min_dwell", "finite number"),
        ("student: {}", "outcomes: {window: 0}", "routes.support.outcomes.window", "greater than 0"),
        ("openai/gpt-4o", "gpt-4o", "routes.support.teachers", "UPSTREAM/MODEL with an upstream of: openai"),
        (
            "engines: {local: {}}\nroutes:",
            "engines: {local: {max_loaded: 1}}\nroutes:\n  other: {teachers: [openai/gpt-4o], student: {}}",
            "engines.local.max_loaded: 1 can't hold the live versions of the 2 routes whose students it serves",
            "write 4, or leave it out",
        ),
        ("student: {}", "student: {engine: vllm}", "routes.support.student.engine", "not one of: local"),
        (
            "distillation_allowed: true",
            "distillation_allowed: false",
            "openai.distillation_allowed",
            "read the provider",
        ),
        (
            "student: {}",
            "student: {}, retrain: {data: {reasoning: keep}}",
            "upstreams.openai.reasoning_distillation_allowed is not true",
            "learns what 'openai/gpt-4o' thinks",
        ),
        ("https://api", "ftp://api", "upstreams.openai.base_url", "http:// or https://"),
        ("upstreams:", "listen: 0.0.0.0:80\nupstreams:", "listen", "is not loopback"),
        ("upstreams:", "log: redis://x\nupstreams:", "log", "write sqlite:///PATH"),
        ("upstreams:", "registry: mysql://x\nupstreams:", "registry", "write sqlite:///PATH or postgresql://USER"),
        ("claims: [gpt-4o]", "claims: [support]", "routes.support.claims", "is the route's already"),
        ("routes:", "routes:\n  other: {teachers: [openai/gpt-4o], claims: [gpt-4o]}", "routes.", "belongs to route"),
    ],
)
def test_each_wrong_value_is_named_with_what_would_be_right(old: str, new: str, key: str, says: str) -> None:
    message = refused(GOOD.replace(old, new))
    assert key in message
    assert says in message


def test_only_an_upstream_that_says_so_may_teach() -> None:
    found = parse(GOOD.replace("upstreams:", "upstreams:\n  other: {base_url: 'http://x'}"), {"KEY": "k"})
    assert found.may_teach("openai/gpt-4o")
    assert not found.may_teach("other/gpt-4o")
    assert not found.may_teach("removed/gpt-4o")


@pytest.mark.parametrize(
    "good",
    [
        "student: {}, rollout: {holdback: 0}, quality: {audit_rate: 0.01, shadow_rate: 0.01}",
        "student: {}, rollout: {holdback: 0.01}, quality: {audit_rate: 0}",
        "rollout: {holdback: 0}, quality: {audit_rate: 0, shadow_rate: 0}",  # no student, nothing to compare
    ],
)
def test_a_route_needs_comparisons_only_of_a_student_and_only_in_one_way(good: str) -> None:
    assert parse(GOOD.replace("student: {}", good), {"KEY": "k"}).routes


def test_a_registrys_password_comes_from_the_environment_and_stays_out_of_the_refusal() -> None:
    text = GOOD.replace(
        "upstreams:", 'registry: "postgresql://retort:${DB}@[::1]:5433,b/db?sslmode=require"\nupstreams:'
    )
    good = parse(text, {"KEY": "k", "DB": "p%40ss"})
    assert good.registry == "postgresql://retort:p%40ss@[::1]:5433,b/db?sslmode=require"
    said = refused(text, DB="p@ss")
    assert "registry: write sqlite:///PATH or postgresql://" in said
    assert "p@ss" not in said


KAFKA = """
log: kafka://a:9092,b:9092/retort
kafka: {security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512, username: u, password: "${KEY}", timeout: 20s,
        topic: {segment.ms: 1000}}
upstreams:"""


def test_a_log_in_kafka_has_its_block() -> None:
    config = parse(GOOD.replace("upstreams:", KAFKA, 1), {"KEY": "a-secret"})
    assert config.log == "kafka://a:9092,b:9092/retort"
    assert (config.kafka.password, config.kafka.timeout) == ("a-secret", 20.0)
    assert "a-secret" not in repr(config.kafka)
    assert Config.model_validate(config.model_dump(mode="json")) == config  # as the retrainer's process gets it


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("a:9092,b:9092/retort", "u:a-secret@a:9092/retort", "log", "username and password go into the block kafka"),
        ("b:9092/retort", "b:9092/re.tort", "log", "at most 40 letters, digits and hyphens"),
        ("log: kafka://a:9092,b:9092/retort", "log: sqlite:///x", "", "kafka: is for a log at kafka://"),
        ('"${KEY}", timeout', "[a-secret], timeout", "kafka.password", "valid string"),
        ("username: u, ", "", "kafka", "SASL_SSL needs sasl_mechanism, username and password"),
        ("SASL_SSL", "SSL", "kafka", "need security_protocol: SASL_SSL"),
        ("timeout: 20s", "cert_file: c", "kafka", "cert_file and key_file go together"),
        ("SASL_SSL", "SASL_PLAINTEXT, ca_file: c", "kafka", "need security_protocol: SSL or SASL_SSL"),
        ("timeout: 20s", "timeout: 0s", "kafka.timeout", "greater than or equal to 1"),
        ("topic:", "topics:", "kafka.topics", "unknown key"),
        ("support:", f"{'s' * 65}:", "routes.sss", "at most 64 bytes"),
    ],
)
def test_what_is_wrong_about_kafka_is_told_without_its_password(old: str, new: str, key: str, says: str) -> None:
    text = GOOD.replace("upstreams:", KAFKA, 1)
    assert old in text
    message = refused(text.replace(old, new))
    assert key in message
    assert says in message
    assert "a-secret" not in message


def test_an_unset_variable_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"upstreams\.openai\.api_key: the environment has no KEY"):
        parse(GOOD, {})


@pytest.mark.parametrize(("text", "says"), [("a: [", "not YAML"), ("just words", "must be a mapping")])
def test_a_file_that_is_no_mapping_is_refused(text: str, says: str) -> None:
    assert says in refused(text)


def test_every_wrong_line_is_told_at_once() -> None:
    message = refused(GOOD.replace("student: {}", "quality: {margin: 2, alpha: -1}"))
    assert len(message.splitlines()) == 2


def test_the_stand_in_is_taken_only_while_the_key_is_unset() -> None:
    text = GOOD.replace("distillation", 'stand_in: "http://127.0.0.1:8090/v1", distillation')
    without, with_key = parse(text, {}), parse(text, {"KEY": "sk-1"})
    assert without.upstreams["openai"].stands_in
    assert without.upstreams["openai"].base_url == "http://127.0.0.1:8090/v1"
    assert not with_key.upstreams["openai"].stands_in
    assert with_key.upstreams["openai"].base_url == "https://api.openai.com/v1"


def test_a_stand_in_without_a_keys_variable_is_refused() -> None:
    text = GOOD.replace('api_key: "${KEY}", ', 'stand_in: "http://127.0.0.1:8090/v1", ')
    assert "stand_in needs api_key: ${VARIABLE}" in refused(text)


def test_every_example_is_a_good_configuration() -> None:
    files = sorted((Path(__file__).parents[2] / "examples").rglob("retort*.yaml"))
    assert files
    for file in files:
        parse(file.read_text("utf-8"), {"KAFKA_PASSWORD": "secret", "OPENAI_API_KEY": "sk-none"})


def test_the_schema_knows_every_key_of_the_file() -> None:
    assert set(json_schema()["properties"]) >= {
        "state",
        "log",
        "registry",
        "artefacts",
        "upstreams",
        "engines",
        "routes",
    }


def test_a_policys_version_changes_with_any_of_its_values() -> None:
    a = RoutePolicy(teachers=("o/m",))
    b = RoutePolicy.model_validate({"teachers": ["o/m"], "quality": {"margin": 0.05}})
    assert a.version == RoutePolicy(teachers=("o/m",)).version != b.version


JUDGED = """
upstreams:
  o: {{base_url: "http://x", api_key: {key}, distillation_allowed: true}}
engines: {{local: {{}}}}
routes:
  support: {{teachers: [o/m], student: {{}}, quality: {{reference: judge, judge: {{route: {route}}}}}}}
  judge: {{teachers: [o/m], capture: {{rate: {rate}}}}}
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "passthrough"}, "what Retort itself asks has no client; give that upstream an api_key of its own"),
        ({"rate": "1.0"}, "must be a route without a student and with capture: {rate: 0}"),
        ({"route": "support"}, "must be a route without a student"),
        ({"route": "nobody"}, "'nobody' must be a route"),
    ],
)
def test_a_judge_that_would_learn_or_could_not_be_asked_is_refused(changes: dict[str, str], said: str) -> None:
    good = {"key": "sk-o", "rate": "0", "route": "judge"}
    assert parse(JUDGED.format(**good), {}).routes["support"].quality.judge
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(JUDGED.format(**{**good, **changes}), {})


def test_a_route_where_the_teacher_is_asked_again_is_as_a_judges() -> None:
    text = JUDGED.format(key="sk-o", rate="0", route="judge")
    text = text.replace("student: {},", "student: {}, retrain: {gate: {teacher_route: judge}},")
    assert parse(text, {}).routes["support"].retrain.gate.teacher_route == "judge"
    said = "routes.support.retrain.gate.teacher_route: 'support' must be a route without a student"
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(text.replace("teacher_route: judge", "teacher_route: support"), {})
    said = (
        "routes.support.retrain.gate.teacher_route: 'judge' asks 'o/cheap', and the teacher that is asked again must "
        "be the route's own: 'o/m'"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(text.replace("judge: {teachers: [o/m]", "judge: {teachers: [o/cheap]"), {})
    upstream = 'o: {base_url: "http://x", api_key: sk-o, distillation_allowed: true}'
    clients = upstream.replace("sk-o", "passthrough")
    assert upstream in text
    named = text.replace(upstream, f"{clients}\n  own: {upstream.removeprefix('o: ')}")
    named = named.replace("judge: {teachers: [o/m]", "judge: {teachers: [own/m]")
    assert parse(named, {}).routes["judge"].teachers == ("own/m",), "the same model, with a key of its own"


def test_a_judge_of_a_route_that_masks_must_mask_as_well() -> None:
    text = JUDGED.format(key="sk-o", rate="0", route="judge")
    text = text.replace("student: {},", "student: {}, capture: {mask_teachers: true},")
    with pytest.raises(ConfigError, match=re.escape("'judge' must have capture.mask_teachers: true as well")):
        parse(text, {})
    both = parse(text.replace("rate: 0", "rate: 0, mask_teachers: true"), {})
    assert both.routes["judge"].capture.mask_teachers


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("student: {recipe: nope}", "routes.r.student.recipe: Input should be 'lora', .* 'quantized'; got 'nope'$"),
        ("quality: {score: nope}", "^routes.r.quality.score: Input should be 'exact', [^()]*; got 'nope'$"),
        (
            "quality: {score: [{score: nope}]}",
            "^routes.r.quality.score.0.score: Input should be 'exact', .*; got 'nope'$",
        ),
    ],
)
def test_a_key_that_takes_one_thing_or_another_is_told_in_one_line(wrong: str, said: str) -> None:
    text = "upstreams: {o: {base_url: 'http://h/v1', distillation_allowed: true}}\nengines: {local: {}}\n"
    with pytest.raises(ConfigError, match=said) as refused:
        parse(f"{text}routes: {{r: {{teachers: [o/m], {wrong}}}}}", {})
    assert len(str(refused.value).splitlines()) == 1


def test_a_key_that_is_given_twice_is_refused_with_its_line() -> None:
    text = "routes:\n  r:\n    teachers: [o/m]\n    student: {recipe: linear}\n    student: {recipe: lora}\n"
    with pytest.raises(ConfigError, match=r"line 5: student is given twice in one place"):
        parse(text, {})
