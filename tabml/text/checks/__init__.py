"""What a model repository may hold: its files are checked here before a library reads them.

Anyone can publish a repository. The libraries hang on some numbers, abort the process on some tokenizers, follow names
out of the folder, run code that a configuration names, and fill tensors that are missing with noise.
"""

from tabml.text.checks.configurations import (
    check_adapter_config,
    check_config,
    check_generation_config,
    check_modules,
    check_tokenizer_config,
    modules_of,
)
from tabml.text.checks.gguf_header import check_gguf
from tabml.text.checks.tensors import check_index, check_safetensors
from tabml.text.checks.tokenizer_file import check_tokenizer

MAX_JSON_BYTES = 64 << 20
MAX_TOKENIZER_BYTES = 256 << 20

__all__ = [
    "MAX_JSON_BYTES",
    "MAX_TOKENIZER_BYTES",
    "check_adapter_config",
    "check_config",
    "check_generation_config",
    "check_gguf",
    "check_index",
    "check_modules",
    "check_safetensors",
    "check_tokenizer",
    "check_tokenizer_config",
    "modules_of",
]
