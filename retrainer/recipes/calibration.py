"""What a quantizer sees of a route: conversations of the training part (scrubbed, like all of it), as the student
reads them."""

import random

from retrainer.job import Job

# 2,048 tokens are 25 conversations of the sample task, and 3 to 6 minutes of AWQ on SmolLM2 and two cores.
TOKENS, TOKENS_ON_CUDA = 2048, 65536
LONGEST = 512  # of one conversation


def conversations(job: Job) -> list[list[int]]:
    """Prompts with their answers, as token ids: a fixed draw, whole ones as long as they aren't too long."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it

    left = TOKENS_ON_CUDA if torch.cuda.is_available() else TOKENS
    drawn: list[list[int]] = []
    for row in random.Random(0).sample(job.rows, len(job.rows)):  # noqa: S311 - a fixed draw
        if left <= 0:
            break
        drawn.append([*row.prompt, *row.completion][-LONGEST:])
        left -= len(drawn[-1])
    return drawn
