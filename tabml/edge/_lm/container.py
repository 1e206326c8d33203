"""What a ``.litertlm`` or ``.task`` file holds, read and checked before native code sees it.

A ``.litertlm`` file is a magic word, a version, a flatbuffer that lists its sections, and these (the layout of Google's
``litert_lm_builder``, which brings the schemas); a ``.task`` file is a zip whose members lie uncompressed.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError
from litert_lm_builder import litertlm_header_schema_py_generated as schema
from litert_lm_builder.runtime.proto import llm_metadata_pb2

from tabml.edge._lm.marks import Marks, marks_of
from tabml.errors import CorruptModelError, ModelKindError, UnsafeModelError

_MAGIC = b"LITERTLM"
_HEADER = 32
_MAX_HEADER = 1 << 20
_MAX_SECTIONS = 256
_MAX_METADATA = 4 << 20
_MAX_ITEMS = 64
MODEL, _TOKENIZER, _METADATA = "TF_LITE_PREFILL_DECODE", "TOKENIZER_MODEL", "METADATA"
_KINDS: Mapping[int, str] = {
    **{number: name for name, number in vars(schema.AnySectionDataType).items() if isinstance(number, int)},
    schema.AnySectionDataType.SP_Tokenizer: _TOKENIZER,
    schema.AnySectionDataType.HF_Tokenizer_Zlib: _TOKENIZER,
    schema.AnySectionDataType.LlmMetadataProto: _METADATA,
}
_VISION, _AUDIO = "TF_LITE_VISION_", "TF_LITE_AUDIO_"
_TFLITE = "TF_LITE_"
_MAJOR = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A piece of the file."""

    kind: str
    """As a ``.task`` file calls it, such as ``TF_LITE_PREFILL_DECODE``, or as the schema does."""
    begin: int
    """Of its first byte."""
    end: int
    """Behind its last byte."""

    @property
    def is_model(self) -> bool:
        """Whether it is a model for LiteRT."""
        return self.kind.startswith(_TFLITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the file says of the model."""

    sections: tuple[Section, ...]
    """In the file's order."""
    template: str | None
    """How a conversation becomes a prompt, as Jinja."""
    model_type: str
    """Such as ``gemma3`` or ``generic_model``."""
    marks: Marks | None
    """What stands for pictures and sounds in a prompt; None where it doesn't say which kind of model it is."""
    start_token: int | str | None
    """Put before every prompt by the library."""
    stop_tokens: tuple[tuple[int, ...] | str, ...]
    """What ends an answer: ids or text."""
    context_length: int
    """Tokens of prompt and answer together; 0 where it doesn't say."""

    @property
    def takes_pictures(self) -> bool:
        """Whether a part of it sees."""
        return any(section.kind.startswith(_VISION) for section in self.sections)

    @property
    def takes_sound(self) -> bool:
        """Whether a part of it hears."""
        return any(section.kind.startswith(_AUDIO) for section in self.sections)


def read_container(path: Path, name: str) -> Container:
    """Look at a file.

    Args:
        path: The file.
        name: For messages.

    Raises:
        CorruptModelError: it is not what its ending says, or contradicts itself.
        ModelKindError: it is no language model.
        UnsafeModelError: it promises more than is read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        sections = _members(file, size, name) if path.suffix == ".task" else _sections(file, size, name)
        for kind in (MODEL, _TOKENIZER, _METADATA):
            if all(section.kind != kind for section in sections):
                raise ModelKindError(f"{name} is no language model: it has no {kind}")
        place = next(section for section in sections if section.kind == _METADATA)
        if place.end - place.begin > _MAX_METADATA:
            raise UnsafeModelError(
                f"{name} has {place.end - place.begin} bytes of metadata; the limit is {_MAX_METADATA}"
            )
        file.seek(place.begin)
        raw = file.read(place.end - place.begin)
    try:
        told = llm_metadata_pb2.LlmMetadata.FromString(raw)
    except DecodeError as problem:
        raise CorruptModelError(f"{name} has metadata that can't be read: {problem}") from None
    marks = marks_of(told.llm_model_type)
    stops = tuple(_token(each) for each in told.stop_tokens)
    start = _token(told.start_token) if told.HasField("start_token") else None
    return Container(
        sections=tuple(sections),
        template=_template(told, marks),
        model_type=told.llm_model_type.WhichOneof("model_type") or "generic_model",
        marks=marks,
        start_token=start[0] if isinstance(start, tuple) and start else start if isinstance(start, str) else None,
        stop_tokens=tuple(each for each in stops if each),
        context_length=max(0, told.max_num_tokens),
    )


def _sections(file: BinaryIO, size: int, name: str) -> list[Section]:
    head = file.read(_HEADER)
    if len(head) < _HEADER or head[:8] != _MAGIC:
        raise CorruptModelError(f"{name} is no .litertlm file: it begins with {head[:8]!r}, not {_MAGIC!r}")
    (major,) = struct.unpack_from("<I", head, 8)
    (end,) = struct.unpack_from("<Q", head, 24)
    if major != _MAJOR:
        raise CorruptModelError(f"{name} has version {major} of the format; {_MAJOR} is known")
    if not _HEADER < end <= min(size, _MAX_HEADER):
        raise CorruptModelError(f"{name} says that its header ends at byte {end} of {size}")
    try:
        table = schema.LiteRTLMMetaData.GetRootAs(file.read(end - _HEADER), 0).SectionMetadata()
        count = table.ObjectsLength() if table is not None else 0
        if not 0 < count <= _MAX_SECTIONS:
            raise CorruptModelError(f"{name} has {count} sections; 1 to {_MAX_SECTIONS} are possible")
        found = [_section(table.Objects(at)) for at in range(count)]
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        if isinstance(problem, CorruptModelError):
            raise
        raise CorruptModelError(f"{name} has a header that can't be read: {problem}") from None
    last = end
    for at, section in enumerate(sorted(found, key=lambda each: each.begin)):
        if not last <= section.begin < section.end <= size:
            raise CorruptModelError(
                f"{name} says that section {at} lies from byte {section.begin} to {section.end}; "
                f"the one before ends at {last}, the file at {size}"
            )
        last = section.end
    return found


def _section(entry: Any) -> Section:
    kind = entry.DataType()
    if kind not in _KINDS:
        raise CorruptModelError(f"a section is of kind {kind}, which is not known")
    named = _KINDS[kind]
    if kind == schema.AnySectionDataType.TFLiteModel:
        named = _model_type(entry)
    return Section(kind=named, begin=entry.BeginOffset(), end=entry.EndOffset())


def _model_type(entry: Any) -> str:
    """Which of the models it is, as a ``.task`` file would call it."""
    for at in range(min(entry.ItemsLength(), _MAX_ITEMS)):
        item = entry.Items(at)
        if item.Key() == b"model_type" and item.ValueType() == schema.VData.StringValue:
            value = schema.StringValue()
            value.Init(item.Value().Bytes, item.Value().Pos)
            return str(value.Value().decode(errors="replace")).upper()[:80]
    return "TF_LITE_UNKNOWN"


def _members(file: BinaryIO, size: int, name: str) -> list[Section]:
    found = []
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MAX_SECTIONS:
                raise CorruptModelError(f"{name} has {len(members)} members; at most {_MAX_SECTIONS} are possible")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                    raise CorruptModelError(
                        f"{name} has a compressed member {member.filename[:40]!r}; a .task has none"
                    )
                with archive.open(member) as opened:  # its own header is looked at
                    begin = opened._orig_compress_start if hasattr(opened, "_orig_compress_start") else 0
                if begin + member.file_size > size:
                    raise CorruptModelError(
                        f"{name} says that {member.filename[:40]!r} lies from byte {begin} to {begin + member.file_size}; "
                        f"the file ends at {size}"
                    )
                found.append(Section(kind=member.filename[:80], begin=begin, end=begin + member.file_size))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as problem:
        if isinstance(problem, CorruptModelError):
            raise
        raise CorruptModelError(f"{name} is no .task file: {problem}") from None
    return found


def _token(union: Any) -> tuple[int, ...] | str:
    return str(union.token_str) if union.WhichOneof("token_union") == "token_str" else tuple(union.token_ids.ids)


def _template(told: Any, marks: Marks | None) -> str | None:
    """The file's Jinja, or one of the words that it puts around what each role says."""
    if told.jinja_prompt_template:
        return str(told.jinja_prompt_template)
    if not told.HasField("prompt_templates"):
        return None
    around = told.prompt_templates
    roles: Sequence[tuple[str, Any]] = (("user", around.user), ("assistant", around.model), ("system", around.system))
    before, behind = (
        "".join(
            f"{{% {'if' if at == 0 else 'elif'} message['role'] == '{role}' %}}{{{{ {getattr(said, side)!r} }}}}"
            for at, (role, said) in enumerate(roles)
        )
        + "{% endif %}"
        for side in ("prefix", "suffix")
    )
    image, audio = ((kind or ("",))[0] for kind in ((marks.image, marks.audio) if marks else ((), ())))
    content = (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        f"{{{{ part['text'] if part['type'] == 'text' else {{'image': {image!r}, 'audio': {audio!r}}}[part['type']] }}}}"
        "{% endfor %}{% endif %}"
    )
    begin = f"{{% if add_generation_prompt %}}{{{{ {around.model.prefix!r} }}}}{{% endif %}}"
    return f"{{% for message in messages %}}{before}{content}{behind}{{% endfor %}}{begin}"
