"""SmolLM2-135M-Instruct with its real weights as a ``.litertlm`` file: int8 by Google's dynamic recipe.

``python tests/recipes/smollm2_litertlm.py FOLDER [CACHE_LENGTH]`` takes three minutes, 3.5 GB, and the environment of
``make test-convert``. The weights are those of the catalog's GGUF file, which has them in 4 bits: unpacked they are what
llama.cpp and transformers compute with, too, so that all can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

PREFILL = (16, 128)


def unpack(file: Path, folder: Path) -> Path:
    """A GGUF file's model in the layout of transformers, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del packed.config.quantization_config  # or it can't be saved
    plain = LlamaForCausalLM(packed.config)
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


def make(folder: Path, *, cache_length: int = 1280) -> Path:
    """The file, with room for so many tokens of prompt and answer: a longer cache is read, and slows, every token."""
    from tiny_litertlm import stand_in_for_tensorflow

    from tabml.files import default_provider, read_bytes
    from tabml.files.catalog import find

    entry = find("smollm2-135m-instruct")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / entry.file
    file.write_bytes(read_bytes(default_provider(), entry.ref))
    source = unpack(file, folder / "unpacked")
    stand_in_for_tensorflow()
    from litert_torch.generative.export_hf import export

    export.export(
        model=str(source), output_dir=str(folder), prefill_lengths=list(PREFILL), cache_length=cache_length,
        quantization_recipe="dynamic_wi8_afp32",
    )  # fmt: skip
    return folder / "model.litertlm"


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), cache_length=int(sys.argv[2]) if len(sys.argv) > 2 else 1280))
