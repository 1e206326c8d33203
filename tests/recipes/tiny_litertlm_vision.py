"""The files under ``tests/models/tiny-lm/vision``: the tiny Llama with random eyes and ears, as Gemma 3n and as Gemma 4.

``python tests/recipes/tiny_litertlm_vision.py FOLDER`` makes them again, with what :mod:`tiny_litertlm` needs. Signatures and
names of tensors are those that LiteRT-LM 0.18.1 asks for. Gemma 3n sees a picture of 32 x 32 pixels as 16 tokens; Gemma 4 sees up to 64
patches of 4 x 4 pixels and makes a token of four; both hear a token in every 40 ms.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tiny_litertlm import CONTEXT, TOKENS, answers, byte_level_bpe, llama, stand_in_for_tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

WIDTH, SIDE, PATCH, PATCHES, SEEN = 64, 32, 8, 64, 16
FRAMES, BINS, HEARD = 64, 128, 16
PARTS = {
    "gemma3n": ("vision_encoder", "vision_adapter", "audio_encoder_hw", "audio_adapter", "end_of_audio"),
    "gemma4": (
        "patch_encoder", "vision_adapter", "end_of_vision", "audio_encoder_hw", "audio_adapter", "end_of_audio",
    ),
}  # fmt: skip
MARKS = {
    "gemma3n": ("<start_of_image>", "<end_of_image>", "<start_of_audio>", "<end_of_audio>"),
    "gemma4": ("<|image|>", "<image|>", "<|audio|>", "<audio|>"),
}
TEMPLATE = (
    "{{% for message in messages %}}{{{{ '<|im_start|>' + message['role'] + '\n' }}}}"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}{{% for c in message['content'] %}}"
    "{{% if c['type'] == 'text' %}}{{{{ c['text'] }}}}{{% elif c['type'] == 'image' %}}{image}{{% else %}}{audio}{{% endif %}}"
    "{{% endfor %}}{{% endif %}}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
)


def picture(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Noise; RGB."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def sound(hertz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    """A tone; 16 kHz."""
    return (0.25 * np.sin(np.arange(round(16_000 * seconds)) * (2 * np.pi * hertz / 16_000))).astype(np.float32)


def image_part(pixels: NDArray[np.uint8]) -> dict[str, str]:
    """As Google's package takes a picture."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return {"type": "image", "blob": base64.b64encode(sink.getvalue()).decode()}


def audio_part(samples: NDArray[np.float32]) -> dict[str, str]:
    """As Google's package takes a sound."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return {"type": "audio", "blob": base64.b64encode(sink.getvalue()).decode()}


def text_part(text: str) -> dict[str, str]:
    """A text, between pictures."""
    return {"type": "text", "text": text}


ASKED = {
    "text": lambda: [text_part("hello")],
    "picture": lambda: [image_part(picture(1)), text_part("hello")],
    "another picture": lambda: [image_part(picture(2)), text_part("hello")],
    "sound": lambda: [audio_part(sound(440)), text_part("hello")],
}


def make(folder: Path) -> None:
    """Both, with the answers of Google's package."""
    stand_in_for_tensorflow()
    folder.mkdir(parents=True, exist_ok=True)
    golden: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as room:
        for name, module, inputs in _organs():
            _convert(Path(room) / f"{name}.tflite", name, module, inputs)
        for kind, marks in MARKS.items():
            text = Path(room) / kind
            _text_model(text, marks)
            _pack(folder / f"{kind}.litertlm", kind, text, Path(room))
            golden[kind] = {
                name: answers(folder / f"{kind}.litertlm", [parts()])[0][0] for name, parts in ASKED.items()
            }
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


def _text_model(folder: Path, marks: Sequence[str]) -> None:
    """What reads and writes, with its embeddings in a file of their own, where pictures join it."""
    from litert_torch.generative.export_hf import export as export_hf

    tokenizer = byte_level_bpe(*marks)
    told = [tokenizer.decode([at]) for at in range(TOKENS)]
    plain = [bool(text) and text not in marks and all(32 <= ord(each) < 127 for each in text) for text in told]
    llama(folder / "hf", tokenizer, [at for at in range(TOKENS) if at < 3 or not plain[at]])
    export_hf.export(
        model=str(folder / "hf"), output_dir=str(folder), prefill_lengths=[16], cache_length=CONTEXT,
        externalize_embedder=True, keep_temporary_files=True,
    )  # fmt: skip


def _organs() -> Sequence[tuple[str, nn.Module, dict[str, Any]]]:
    """What sees and hears: name, module and inputs of each."""
    import torch
    from torch import nn

    class Eye(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look = nn.Conv2d(3, 32, PATCH, PATCH)
            self.place = nn.Parameter(0.3 * torch.randn(1, SEEN, 32))

        def forward(self, images: Any) -> Any:
            seen = self.look(images.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
            return {"features": torch.tanh(4 * seen + self.place)}

    class Facets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look = nn.Linear(3 * 16, 32)
            self.place = nn.Linear(2, 32)

        def forward(self, images: Any, positions_xy: Any) -> Any:
            there = (positions_xy[..., :1] >= 0).float()
            seen = torch.tanh(4 * self.look(images) + self.place(0.1 * positions_xy.float())) * there
            return {"features": seen.reshape(1, SEEN, 4, 32).mean(2), "mask": there.reshape(1, SEEN, 4)[..., 0] > 0}

    class Ear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.listen = nn.Linear(BINS * FRAMES // HEARD, 32)

        def forward(self, src_inputs: Any, mask: Any) -> Any:
            heard = torch.tanh(self.listen(src_inputs.reshape(1, HEARD, -1)))
            return {"features": heard, "mask": mask.reshape(1, HEARD, -1)[:, :, 0]}

    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.join = nn.Linear(32, WIDTH)

        def forward(self, soft_tokens: Any) -> Any:
            return {"mm_embedding": self.join(soft_tokens)}

    class MaskedJoint(Joint):
        def forward(self, mask: Any, features: Any) -> Any:  # in this order
            return {"mm_embedding": self.join(features) * mask.unsqueeze(-1)}

    class End(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.end = nn.Parameter(0.3 * torch.randn(1, 1, WIDTH))

        def forward(self) -> Any:
            return {"embedding": self.end * 1.0}

    torch.manual_seed(7)
    heard = torch.ones(1, FRAMES, dtype=torch.bool)
    return [
        ("vision_encoder", Eye(), {"images": torch.zeros(1, SIDE, SIDE, 3)}),
        ("patch_encoder", Facets(), {
            "images": torch.zeros(1, PATCHES, 48), "positions_xy": torch.zeros(1, PATCHES, 2, dtype=torch.int32),
        }),
        ("vision_adapter", Joint(), {"soft_tokens": torch.zeros(1, SEEN, 32)}),
        ("end_of_vision", End(), {}),
        ("audio_encoder_hw", Ear(), {"src_inputs": torch.zeros(1, FRAMES, BINS), "mask": heard}),
        ("audio_adapter", MaskedJoint(), {"mask": heard[:, :HEARD], "features": torch.zeros(1, HEARD, 32)}),
        ("end_of_audio", End(), {}),
    ]  # fmt: skip


def _convert(path: Path, name: str, module: nn.Module, inputs: dict[str, Any]) -> None:
    import litert_torch

    converter = litert_torch.Converter().add_signature(name, module.eval(), sample_kwargs=inputs)
    converter.convert(strict_export=False).export(str(path))


def _pack(path: Path, kind: str, text: Path, organs: Path) -> None:
    from litert_lm_builder import litertlm_builder
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    told = llm_metadata_pb2.LlmMetadata.FromString((text / "llm_metadata.pb").read_bytes())
    image, image_end, audio, audio_end = MARKS[kind]
    told.jinja_prompt_template = TEMPLATE.format(image=image, audio=audio)
    model = getattr(told.llm_model_type, kind)
    model.start_of_image_token.token_str, model.end_of_image_token.token_str = image, image_end
    model.start_of_audio_token.token_str, model.end_of_audio_token.token_str = audio, audio_end
    if kind == "gemma3n":
        model.image_tensor_height = model.image_tensor_width = SIDE
    else:
        model.patch_width = model.patch_height = 4
        model.max_num_patches, model.pooling_kernel_size = PATCHES, 2
    (text / "told.pb").write_bytes(told.SerializeToString())
    builder = litertlm_builder.LitertLmFileBuilder()
    builder.add_system_metadata(
        litertlm_builder.Metadata(key="Authors", value="tabml", dtype=litertlm_builder.DType.STRING)
    )
    builder.add_llm_metadata(str(text / "told.pb"))
    builder.add_executor_metadata(str(text / "executor_metadata.pb"))
    builder.add_hf_tokenizer(str(text / "tokenizer.json"))
    models = {"prefill_decode": text / "model_quantized.tflite", "embedder": text / "embedder_quantized.tflite"}
    models |= {name.replace("patch", "vision"): organs / f"{name}.tflite" for name in PARTS[kind]}
    for name, file in models.items():
        builder.add_tflite_model(str(file), litertlm_builder.TfLiteModelType(f"tf_lite_{name}"))
    with path.open("wb") as sink:
        builder.build(sink)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
