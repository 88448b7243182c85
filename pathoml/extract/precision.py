"""Number formats inside encoders, and what a device may make of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def exact_float32() -> Iterator[None]:
    """Let float32 be float32 for a while: a GPU rounds inputs of convolutions to 10 bits and still calls it that.

    The state of the process is what it was afterwards, since a training in the same process may want the faster format.

    Yields
    ------
    None
        While it holds.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
