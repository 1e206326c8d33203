"""Small encoders of random weights, of each kind whose layers compiled kernels know."""

from __future__ import annotations

from typing import Any

import torch
import transformers

_SIZE: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 96, "intermediate_size": 208, "num_hidden_layers": 2, "num_attention_heads": 6,
}  # fmt: skip
_NAMES = {
    "bert": "BertConfig", "roberta": "RobertaConfig", "xlm-roberta": "XLMRobertaConfig", "camembert": "CamembertConfig",
    "electra": "ElectraConfig", "data2vec": "Data2VecTextConfig", "ernie": "ErnieConfig",
}  # fmt: skip
KINDS = (*_NAMES, "distilbert")
LAYERS = 2


def build(kind: str, **changed: Any) -> Any:
    """A model in float32, in eval mode; biases and norms are none of zeros and ones.

    Args:
        kind: One of KINDS.
        changed: Settings by their names in the configuration.
    """
    torch.manual_seed(1)
    if kind == "distilbert":
        config: Any = transformers.DistilBertConfig(vocab_size=128, dim=96, hidden_dim=208, n_layers=LAYERS, n_heads=2)
    else:
        config = getattr(transformers, _NAMES[kind])(**_SIZE)
    for name, value in changed.items():
        setattr(config, name, value)
    model = transformers.AutoModel.from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model
