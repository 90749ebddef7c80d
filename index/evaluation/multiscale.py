"""One vector for an image from several sizes of it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Embedder, embed_checked
from index.images.decode import Photo, with_pixels


def at_scales(model: Embedder, scales: Sequence[float]) -> Embedder:
    """The model itself for the image as it is, else a `MultiScale` of it."""
    return model if tuple(scales) == (1.0,) else MultiScale(model, scales)


class MultiScale(Embedder):
    """An embedder that resizes an image by each scale, and answers with the mean of the vectors.

    Bilinear, as in the field. The mean is the generalised mean of p = 1, which the field takes for vectors
    that have signs; another p is only for pooled activations, which have none.

    A model that squashes every image to one square sees the smaller sizes as less sharp, not as smaller:
    expect less of it than the field reports for models that take any size.
    """

    def __init__(self, model: Embedder, scales: Sequence[float]) -> None:
        """Wrap a model.

        Args:
            model: What embeds each size.
            scales: Shares of the image's own width and height.
        """
        self._model = model
        self._scales = tuple(scales)
        self.key = f"{model.key} at {','.join(f'{scale:g}' for scale in scales)}"
        self.name = model.name
        self.spec = model.spec
        self.options = model.options
        self.calls = model.calls
        self.side = math.ceil(model.side / min(*scales, 1.0))  # enough pixels for the smallest, too
        self.provider = model.provider

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Length of the vectors."""
        return self._model.dim

    def prepare(self, photo: Photo) -> NDArray[Any]:
        """Make the model's input for each scale: `(scales,)` objects."""
        inputs = np.empty(len(self._scales), object)
        for i, scale in enumerate(self._scales):
            inputs[i] = self._model.prepare(_resized(photo, scale))
        return inputs

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Map n prepared inputs to `(n, dim)` float32 unit rows; opposite vectors give a row of zeros."""
        names = [f"image {i} at scale {scale:g}" for i in range(1, len(batch) + 1) for scale in self._scales]
        vectors = embed_checked(self._model, [view for views in batch for view in views], names)
        mean = vectors.reshape(len(batch), len(self._scales), self.dim).mean(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def _resized(photo: Photo, scale: float) -> Photo:
    if scale == 1:
        return photo
    width, height = (max(round(side * scale), 1) for side in photo.image.size)
    return with_pixels(photo, photo.image.resize((width, height), Image.Resampling.BILINEAR))
