"""What may be in an artefact: nothing that runs code when it is loaded, or leads out of it."""

from pathlib import Path

from exporters.models.errors import ForbiddenFile

# Data only. A pickle (.bin, .pt, .pkl) or Python source runs code when it is loaded, so it never gets in.
ALLOWED = frozenset({".onnx", ".data", ".safetensors", ".json", ".jinja", ".txt", ".md", ".png", ".html"})
TOKENIZERS = frozenset({"tokenizer.model"})  # SentencePiece's protobuf, or tiktoken's text; other .model may be pickles

# How a page must begin: under this policy no browser runs a script of it, or loads anything.
INERT_HTML = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)


def refuse(file: Path, name: str) -> None:
    """Raises ForbiddenFile for a file that may not be in an artefact."""
    if file.is_symlink():
        raise ForbiddenFile(f"{name}: a link may lead out of the artefact; copy the file")
    refuse_name(name)
    if file.suffix == ".html":
        with file.open("rb") as stream:
            if stream.read(len(INERT_HTML)) != INERT_HTML.encode():
                raise ForbiddenFile(f"{name}: a page without the policy that keeps it from running scripts is refused")


def refuse_name(name: str) -> None:
    """The same, of what a name tells."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ForbiddenFile(f"{name}: leads out of the artefact")
    if path.suffix not in ALLOWED and path.name not in TOKENIZERS:
        raise ForbiddenFile(
            f"{name}: files of this kind are refused, because loading them may run code; "
            f"an artefact holds only {', '.join(sorted(ALLOWED | TOKENIZERS))}"
        )
