"""Write macenko.json: what torchstain 1.4.1 makes of a small picture of two stains (pip install torchstain==1.4.1).

Run it in an environment of its own: torchstain brings a top-level package `tests` that hides this project's.
"""

import json
from pathlib import Path

import numpy as np
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer


def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.35, (1024, 2))
    amounts[:100, 1] *= 0.02
    amounts[100:200, 0] *= 0.02
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return np.clip(np.rint(240 * np.exp(-amounts @ stains) - 1), 0, 255).astype(np.uint8).reshape(32, 32, 3)


if __name__ == "__main__":
    given = picture()
    normalised, _, _ = NumpyMacenkoNormalizer().normalize(I=given, stains=False)
    content = {
        "made by": "torchstain 1.4.1",
        "given": given.ravel().tolist(),
        "normalised": normalised.ravel().tolist(),
    }
    (Path(__file__).parent / "macenko.json").write_text(json.dumps(content) + "\n")
