"""Bare onnxruntime-genai for `engine.py`: `STREAMS` greedy answers as one batch of its generator, nothing around it.

    python benchmarks/engine_bare.py FOLDER THREADS STREAMS MOST

Prints {tokens, seconds, first}: generated tokens, the whole time, and that until each answer had its first token.
"""

import json
import sys
import time

import numpy as np
import onnxruntime_genai as og
from engine_prompts import story


def main(folder: str, threads: int, streams: int, most: int) -> None:
    og.disable_telemetry_events()
    config = og.Config(folder)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = og.Model(config)
    tokenizer = og.Tokenizer(model)
    ends = {int(i) for i in tokenizer.eos_token_ids}
    for number in (0, 1):  # the first time to warm up
        texts = [
            tokenizer.apply_chat_template(json.dumps(story(100 * number + n)), add_generation_prompt=True)
            for n in range(streams)
        ]
        encoded = tokenizer.encode_batch(texts)
        lengths = np.asarray(encoded.as_numpy() if hasattr(encoded, "as_numpy") else encoded).shape
        began, first, tokens = time.perf_counter(), 0.0, 0
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=lengths[-1] + most, batch_size=streams, do_sample=False, min_length=0)
        generator = og.Generator(model, parameters)
        generator.append_tokens(encoded)
        going = np.ones(streams, dtype=bool)
        for _ in range(most):
            generator.generate_next_token()
            first = first or time.perf_counter() - began
            found = np.asarray(generator.get_next_tokens())
            tokens += int(going.sum())
            going &= ~np.isin(found, list(ends))
            if generator.is_done() or not going.any():
                break
    print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - began, "first": first}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
