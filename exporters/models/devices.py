"""Where a model that is only read is put."""

SPARE = 1.25  # times its weights, with activations and a cache beside them


def reading_device(size: int) -> str:
    """`cuda` where a GPU has room for a model of so many bytes, else `cpu`."""
    import torch  # noqa: PLC0415 - heavy

    return "cuda" if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] >= SPARE * size else "cpu"
