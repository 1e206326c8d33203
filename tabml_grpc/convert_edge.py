"""Between tabml's edge values and the messages of ``tabml.v1``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import CapacityError
from tabml_grpc.calls import MAX_RESPONSE
from tabml_grpc.convert_text import message_from_v1
from tabml_grpc.statuses import RequestError
from tabml_grpc.v1 import edge_pb2 as v1

if TYPE_CHECKING:
    from tabml._litert.specs import Signature, TensorSpec
    from tabml.edge import LiteLM, LiteModel

DTYPES = (
    "float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
    "complex64",
)  # fmt: skip
MAX_TENSORS = 1024
_MAX_DIMENSIONS, _MAX_LENGTH = 8, 1 << 31
_MAX_TEXTS = 64 << 20
_PIECE = MAX_RESPONSE - (64 << 10)
_TEXTS = "bytes"
_HEADROOM = 1024


def array_from_v1(message: v1.Tensor) -> NDArray[Any]:
    """An array; of its bytes a view.

    Raises:
        RequestError: the type is unknown, the bytes are more or fewer than type and shape say, or texts take too much
            memory: each as much as the longest.
    """
    shape, name = tuple(message.shape), message.name[:80]
    if (
        len(shape) > _MAX_DIMENSIONS
        or any(length < 0 for length in shape)
        or prod(max(1, length) for length in shape) >= _MAX_LENGTH
    ):
        raise RequestError(
            f"inputs[{name!r}].shape={list(shape)!r:.80} must be at most {_MAX_DIMENSIONS} lengths, of less than "
            f"{_MAX_LENGTH} elements in all"
        )
    if not message.dtype:
        if message.data or len(message.texts) != prod(shape):
            raise RequestError(f"inputs[{name!r}]: dtype must be set, or as many texts be given as shape={shape} says")
        longest = max(map(len, message.texts), default=0)
        if longest * len(message.texts) > _MAX_TEXTS:
            raise RequestError(
                f"inputs[{name!r}].texts are {len(message.texts)} of up to {longest} bytes; each takes as much as the "
                f"longest, and all together at most {_MAX_TEXTS}"
            )
        return np.array(list(message.texts), np.bytes_).reshape(shape)
    if message.dtype not in DTYPES:
        raise RequestError(f"inputs[{name!r}].dtype={message.dtype!r:.40} must be one of {', '.join(DTYPES)}")
    dtype = np.dtype(message.dtype).newbyteorder("<")
    wanted = prod(shape) * dtype.itemsize
    if len(message.data) != wanted:
        raise RequestError(
            f"inputs[{name!r}].data has {len(message.data)} bytes; {message.dtype} of shape {list(shape)} has {wanted}"
        )
    return np.frombuffer(message.data, dtype).reshape(shape)


def array_to_v1(name: str, array: NDArray[Any]) -> v1.Tensor:
    """The message of an array."""
    if array.dtype.kind in "SO":
        return v1.Tensor(name=name, shape=array.shape, texts=[bytes(each) for each in array.ravel().tolist()])
    stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return v1.Tensor(name=name, dtype=array.dtype.name, shape=array.shape, data=stored.tobytes())


def inputs_from_v1(messages: Sequence[v1.Tensor]) -> dict[str, NDArray[Any]] | list[NDArray[Any]]:
    """Arrays by name, or by place where none has a name.

    Raises:
        RequestError: there are too many, some have names and some have none, two have one, or an array is none.
    """
    if len(messages) > MAX_TENSORS:
        raise RequestError(f"inputs has {len(messages)} tensors; the limit is {MAX_TENSORS}")
    names = [message.name for message in messages]
    arrays = [array_from_v1(message) for message in messages]
    if not any(names):
        return arrays
    if not all(names) or len(set(names)) < len(names):
        raise RequestError("inputs must all have names, each its own, or none of them")
    return dict(zip(names, arrays, strict=True))


def outputs_to_v1(outputs: Mapping[str, NDArray[Any]], wanted: Iterable[str]) -> list[v1.Tensor]:
    """Those of the outputs that are wanted; all when none is named.

    Raises:
        RequestError: one is unknown, or named twice.
    """
    chosen = list(wanted) or list(outputs)
    if len(set(chosen)) < len(chosen):
        raise RequestError("config.outputs must name each output once")
    for name in chosen:
        if name not in outputs:
            raise RequestError(f"config.outputs={name[:80]!r} is none of the outputs: {', '.join(outputs)}"[:1000])
    return [array_to_v1(name, outputs[name]) for name in chosen]


def check_length(tensors: Sequence[v1.Tensor]) -> None:
    """Nothing, when they fit into one answer.

    Raises:
        CapacityError: they don't.
    """
    size = sum(tensor.ByteSize() for tensor in tensors)
    if size > MAX_RESPONSE - _HEADROOM:
        raise CapacityError(
            f"the outputs have {size} bytes; one answer has at most {MAX_RESPONSE}: "
            "choose some by config.outputs, or call StreamRun"
        )


def in_pieces(tensors: Sequence[v1.Tensor]) -> Iterator[list[v1.Tensor]]:
    """Outputs in messages that existing clients can receive: the data of a long one is spread over several.

    Raises:
        CapacityError: one has texts that are more than a message can have.
    """
    held: list[v1.Tensor] = []
    room = _PIECE
    for tensor in tensors:
        data = memoryview(tensor.data)
        for begin in range(0, max(1, len(data)), _PIECE):
            piece = v1.Tensor(
                name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, data=bytes(data[begin : begin + _PIECE]),
                texts=tensor.texts,
            )  # fmt: skip
            size = piece.ByteSize()
            if size > MAX_RESPONSE - _HEADROOM:
                raise CapacityError(f"{tensor.name!r} has texts of {size} bytes; one answer has at most {MAX_RESPONSE}")
            if held and size > room:
                yield held
                held, room = [], _PIECE
            held.append(piece)
            room -= size
    yield held


def _spec_to_v1(spec: TensorSpec) -> v1.TensorSpec:
    return v1.TensorSpec(
        name=spec.name,
        dtype=_TEXTS if spec.dtype.kind in "SO" else spec.dtype.name,
        shape=spec.shape,
        shape_signature=spec.shape_signature or spec.shape,
        scale=spec.scale,
        zero_point=spec.zero_point,
    )


def signature_to_v1(name: str, signature: Signature) -> v1.Signature:
    """One way of calling a model."""
    return v1.Signature(
        name=name, inputs=map(_spec_to_v1, signature.inputs), outputs=map(_spec_to_v1, signature.outputs)
    )


def description_to_v1(model: LiteModel) -> v1.EdgeServiceDescribeResponse:
    """What a LiteRT model takes and gives."""
    metadata = model.metadata
    return v1.EdgeServiceDescribeResponse(
        signatures=[signature_to_v1(name, signature) for name, signature in model.signatures.items()],
        default_signature=model.default_signature,
        metadata_json=json.dumps(metadata.to_dict()) if metadata is not None else "",
        accelerator=model.accelerator.name,
        accelerator_why=model.accelerator.why,
        threads=model.threads,
        size_bytes=model.size_bytes,
    )


def lm_description_to_v1(model: LiteLM) -> v1.EdgeServiceDescribeResponse:
    """What a language model takes."""
    return v1.EdgeServiceDescribeResponse(
        accelerator=model.device, threads=model.threads, context_length=model.context_length, takes=model.takes
    )


def parts_messages_from_v1(messages: Sequence[v1.PartsMessage]) -> list[dict[str, Any]]:
    """A conversation with pictures and sounds; a picture is decoded when the model asks for it.

    Raises:
        RequestError: a part is empty, or sound is not float32.
    """
    return [message_from_v1(message, _content_from_v1(message.parts)) for message in messages]


def _content_from_v1(parts: Sequence[v1.Part]) -> str | list[dict[str, Any]]:
    if all(part.WhichOneof("content") == "text" for part in parts):
        return "".join(part.text for part in parts)
    return [_part_from_v1(part) for part in parts]


class _Encoded:
    """A picture of which only the file is kept: of many, one at a time lies decoded in memory."""

    def __init__(self, file: bytes) -> None:
        self._file = file

    def to_rgb(self) -> NDArray[np.uint8]:
        """Its pixels.

        Raises:
            FrameError: it is no picture, or too large.
        """
        from tabml.vision.frame import Frame

        return Frame.from_bytes(self._file).to_rgb()


def _part_from_v1(part: v1.Part) -> dict[str, Any]:
    kind = part.WhichOneof("content")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "image":
        return {"type": "image", "image": _Encoded(part.image)}
    if kind == "audio":
        if len(part.audio) % 4:
            raise RequestError(f"parts.audio has {len(part.audio)} bytes, which are no float32")
        return {"type": "audio", "audio": np.frombuffer(part.audio, "<f4").astype(np.float32)}
    raise RequestError("parts must each have a text, an image or audio")
