"""What `retort up` makes before it starts anything."""

import sys
from pathlib import Path

import pytest

from retort.errors import StartError
from retort.prepare import prepare
from router import Config, parse


def config(state: Path, score: str) -> Config:
    return parse(
        f"""
        state: {state}
        upstreams: {{openai: {{base_url: "http://x"}}}}
        routes: {{support: {{teachers: [openai/gpt-4o], quality: {{score: {score}}}}}}}
        """,
        {},
    )


def script(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n{code}")


FAILS = script("print('no torch here'); sys.exit(3)")


def test_the_encoder_is_made_once_where_a_score_needs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for score in ("embedding", "[{score: exact}, {score: embedding, weight: 2}]"):
        state = tmp_path / str(len(score))
        wanted = config(state, score)
        prepare(wanted, exporter=script("folder.mkdir()"))
        assert [p.name for p in (state / "models").iterdir()] == ["minilm"]
        assert "support" in capsys.readouterr().out
        prepare(wanted, exporter=FAILS)
        assert capsys.readouterr().out == ""


def test_nothing_is_made_where_no_score_needs_it(tmp_path: Path) -> None:
    prepare(config(tmp_path / "state", "exact"), exporter=FAILS)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("code", ["print('no torch here'); sys.exit(3)", "print('no torch here')"])
def test_a_failure_says_why_and_what_would_help(tmp_path: Path, code: str) -> None:
    with pytest.raises(StartError, match=r"no torch here\nit needs `pip install") as failed:
        prepare(config(tmp_path, "embedding"), exporter=script(code))
    assert "minilm.log" in str(failed.value)
