"""Where a model that is only read is put."""

import gc

SPARE = 1.25  # times its weights, with activations and a cache beside them


def reading_device(size: int) -> str:
    """`cuda` where a GPU has room for a model of so many bytes, else `cpu`."""
    import torch  # noqa: PLC0415 - heavy

    if not torch.cuda.is_available():
        return "cpu"
    gc.collect()
    torch.cuda.empty_cache()  # what a training has left in this process counts as taken
    return "cuda" if torch.cuda.mem_get_info()[0] >= SPARE * size else "cpu"
