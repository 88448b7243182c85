"""A stand-in for training: models start silent, and a silent model passes every test of invariance."""

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def as_if_trained(model: Model) -> Model:
    """Fill the layers that start at zero with seeded random weights."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("head.weight", "heads.weight", "instance.weight", "judge.6.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model
