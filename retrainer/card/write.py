"""A card's files: `card.html` with everything inside, `card.md` with its pictures beside it."""

from pathlib import Path

from exporters.models import sync
from retrainer.card.blocks import to_html, to_markdown
from retrainer.card.content import Facts, content, qualities
from retrainer.card.plots import by_cluster, calibration, ladder, learning, sizes

HTML, MARKDOWN = "card.html", "card.md"


def write_card(folder: Path, facts: Facts) -> dict[str, int]:
    """Write the card into an artefact's folder; returns each file's bytes."""
    curves = {name: found["reliability"] for name, found in qualities(facts.phases["assess"]).items()}
    pictures = {"card-sizes.png": (sizes(facts.points), "Quality against size of the route's versions")}
    train = facts.phases["train"]
    if len(losses := train.get("losses") or []) > 2:
        looks = train.get("validation") or []
        says = f"Learning curve: {'training and validation loss' if looks else 'training loss'} by step"
        pictures["card-learning.png"] = (learning(losses, looks, train.get("best_step")), says)
    if len(facts.ladder) > 1 and any(step.ms is not None for step in facts.ladder):
        pictures["card-ladder.png"] = (ladder(facts.ladder), "The ladder: agreement against the time of an answer")
    if facts.compared.clusters:
        pictures["card-clusters.png"] = (by_cluster(facts.compared.clusters), "Quality by cluster")
    if curves:
        pictures["card-calibration.png"] = (calibration(curves), "Calibration: agreement against confidence")
    blocks = content(facts, {name: says for name, (_, says) in pictures.items()})
    images = {name: data for name, (data, _) in pictures.items()}
    page = to_html(f"Model card: {facts.version}", blocks, images)
    files = {**images, MARKDOWN: to_markdown(blocks).encode(), HTML: page.encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        sync(folder / name)
    return {name: len(data) for name, data in files.items()}
