"""What a model with metadata wants to be given, made of pictures and sounds as people have them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tabml._litert.metadata import TensorMetadata
from tabml._litert.specs import TensorSpec
from tabml.errors import ModelKindError, OptionError

Pixels = NDArray[np.uint8]
MAX_PIXELS = 40_000_000
"""Of a picture, as for encoded ones."""
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@runtime_checkable
class Picture(Protocol):
    """What knows its pixels, such as a ``tabml.vision.Frame``."""

    def to_rgb(self) -> Pixels:
        """Shape (height, width, 3), uint8, RGB."""
        ...


def prepared(spec: TensorSpec, said: TensorMetadata | None, value: ArrayLike | Picture) -> NDArray[Any]:
    """The array for an input, of a picture, a sound, or numbers that have its shape already.

    Args:
        spec: The input.
        said: What the model's metadata say of it.
        value: A picture: a frame, or an array of shape (height, width, 3) or (height, width), uint8, of any size, which
            is stretched to the model's and normalised as it wants. Otherwise numbers as the model wants them, with or
            without its first dimension of 1.

    Raises:
        OptionError: it is neither.
        ModelKindError: the model wants its pictures otherwise than is known here.
    """
    if isinstance(value, Picture):
        value = value.to_rgb()
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim in (2, 3) and len(spec.shape) == 4 and _takes_pictures(said):
        return _picture(spec, said, array)
    if array.shape == spec.shape[1:] and spec.shape[:1] == (1,):
        array = array[None]
    if spec.is_quantized and array.dtype.kind == "f":
        return spec.quantize(array)
    if array.dtype.kind in "iuf" and spec.dtype.kind == "f":
        return array.astype(spec.dtype)
    return array


def _takes_pictures(said: TensorMetadata | None) -> bool:
    return said is None or said.content in ("", "image")


def _picture(spec: TensorSpec, said: TensorMetadata | None, pixels: Pixels) -> NDArray[Any]:
    _, rows, columns, channels = spec.shape
    if channels not in (1, 3) or spec.shape[0] != 1 or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise OptionError(f"the input {spec.name!r} takes {spec}, not a picture {pixels.shape}")
    if not 1 <= pixels.size <= 3 * MAX_PIXELS:
        raise OptionError(f"a picture {pixels.shape} has no pixels, or more than {MAX_PIXELS}")
    if channels == 1 and pixels.ndim == 3:
        pixels = np.rint(pixels @ _GRAY).astype(np.uint8)
    elif channels == 3 and pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    fitting = stretched(pixels, columns, rows).reshape(1, rows, columns, channels)
    if spec.dtype == np.uint8:
        return fitting
    scaled = _normalised(fitting, said if said is not None and said.std else _UNIT)
    return spec.quantize(scaled) if spec.is_quantized else scaled.astype(spec.dtype)


_UNIT = TensorMetadata(name="", mean=(0.0,), std=(255.0,))


def _normalised(values: NDArray[Any], said: TensorMetadata | None) -> NDArray[np.float32]:
    """(value − mean) / deviation, along the last axis; as they are where the model says nothing."""
    real = values.astype(np.float32)
    if said is None or not said.std:
        return real
    mean, std = np.array(said.mean or (0.0,), np.float32), np.array(said.std, np.float32)
    if (std == 0).any() or any(len(each) not in (1, real.shape[-1]) for each in (mean, std)):
        raise ModelKindError(f"the model wants its input normalised by {said.mean[:4]} and {said.std[:4]}")
    return (real - mean) / std


def stretched(pixels: Pixels, width: int, height: int) -> Pixels:
    """A picture at another size: bilinear between pixels, which are points here.

    Source: MediaPipe's ``image_to_tensor_calculator``, so that models answer as they do there.
    """
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    low, high, share = _between(pixels.shape[0], height)
    shape = (-1,) + (1,) * (pixels.ndim - 1)
    rows = pixels[low].astype(np.float32)
    rows += (pixels[high].astype(np.float32) - rows) * share.reshape(shape)
    low, high, share = _between(pixels.shape[1], width)
    whole = rows[:, low]
    whole += (rows[:, high] - whole) * share.reshape(shape[:-1] if pixels.ndim == 3 else (*shape[1:], -1))
    return np.rint(whole).astype(np.uint8)


def _between(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each new place: the two old ones beside it, and how far it is from the first to the second."""
    at = np.clip(np.rint(np.arange(wanted) * (length / wanted * 32)) / 32, 0, length - 1)  # its OpenCV has 32 steps
    low = np.floor(at).astype(np.intp)
    return low, np.minimum(low + 1, length - 1), (at - low).astype(np.float32)
