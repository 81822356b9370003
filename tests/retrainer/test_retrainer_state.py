"""What a finished cycle's folder keeps."""

from pathlib import Path

from daemon_run import broken, config, cycles_of, log_exchanges, running, stand_in, until

from retrainer.ask import ask
from retrainer.begin import begin
from retrainer.state import Cycles, Request
from retrainer.worker import EXIT_FAILED
from router.config import Config

KEPT = {"state.json", "progress.json", ".lock", "order.json", "export.log", "dataset", "wandb"}
# What recipes leave: models, what teachers said, and what a kill left half written.
LEFT = {
    "train", "merged", "artefact", "rungs", "building", "texts", "first", "exact", "pruned", "assistant", "assistant-1",
    "cut-1", "round-1", "task-0", "votes-0", "launch.json", ".merged.tmp",
}  # fmt: skip


def left(settings: Config, cycle_id: str, outcome: str | None) -> set[str]:
    """Make the folder of a cycle as a training leaves it."""
    cycles = Cycles(settings.state)
    state = begin(settings, cycles, Request(cycle_id=cycle_id, route="colours"))
    state.outcome = outcome
    cycles.save(state)
    folder = cycles.folder(cycle_id)
    for name in (KEPT | LEFT) - {"state.json"}:
        if name.endswith((".json", ".log", ".lock")):
            (folder / name).write_text("{}")
        else:
            (folder / name).mkdir()
            (folder / name / "file").write_text("some")
    return names(settings, cycle_id)


def names(settings: Config, cycle_id: str) -> set[str]:
    return {path.name for path in Cycles(settings.state).folder(cycle_id).iterdir()}


def test_the_next_cycle_removes_all_that_finished_ones_have_no_more_use_for(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    outside = tmp_path / "outside"
    outside.mkdir()
    left(settings, "refused", "refused")
    (Cycles(settings.state).folder("refused") / "models").symlink_to(outside, target_is_directory=True)
    at_work = left(settings, "at-work", None)
    begin(settings, Cycles(settings.state), Request(cycle_id="next", route="colours"))
    assert names(settings, "refused") == KEPT
    assert names(settings, "at-work") == at_work == KEPT | LEFT
    assert outside.is_dir()


async def test_a_failed_cycle_keeps_no_texts_of_a_data_set_that_it_never_had(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    leaves = "import pathlib\n(cycles.folder(cycle_id) / 'building').mkdir()\n"
    async with running(settings, stand_in(leaves + broken("no such base", EXIT_FAILED))):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"])
    assert "building" not in names(settings, "mine")
