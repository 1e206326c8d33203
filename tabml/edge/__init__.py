"""Models for LiteRT, and language models made for devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml._litert.metadata import ModelMetadata, TensorMetadata
    from tabml._litert.specs import Signature, TensorSpec
    from tabml.edge.classification import Categories, Category, LiteClassifier, LiteEmbedder
    from tabml.edge.comparison import Comparison, OutputAgreement
    from tabml.edge.conversion import Converted, convert
    from tabml.edge.inspection import Inspection, inspect_model
    from tabml.edge.lm import LiteLM, LmSpeed
    from tabml.edge.models import LiteBuffers, LiteModel
    from tabml.edge.quantizing import Quantized, quantize
    from tabml.edge.results import Accelerator, Benchmark, LiteOutputs, OperatorTime, Profile

__all__ = [
    "Accelerator",
    "Benchmark",
    "Categories",
    "Category",
    "Comparison",
    "Converted",
    "Inspection",
    "LiteBuffers",
    "LiteClassifier",
    "LiteEmbedder",
    "LiteLM",
    "LiteModel",
    "LiteOutputs",
    "LmSpeed",
    "ModelMetadata",
    "OperatorTime",
    "OutputAgreement",
    "Profile",
    "Quantized",
    "Signature",
    "TensorMetadata",
    "TensorSpec",
    "convert",
    "inspect_model",
    "quantize",
]

_LAZY = {
    "Comparison": "tabml.edge.comparison", "Converted": "tabml.edge.conversion", "Inspection": "tabml.edge.inspection",
    "OutputAgreement": "tabml.edge.comparison", "Quantized": "tabml.edge.quantizing", "convert": "tabml.edge.conversion",
    "inspect_model": "tabml.edge.inspection", "quantize": "tabml.edge.quantizing",
    "Accelerator": "tabml.edge.results", "Benchmark": "tabml.edge.results", "Categories": "tabml.edge.classification",
    "Category": "tabml.edge.classification", "LiteBuffers": "tabml.edge.models",
    "LiteClassifier": "tabml.edge.classification", "LiteEmbedder": "tabml.edge.classification",
    "LiteLM": "tabml.edge.lm", "LiteModel": "tabml.edge.models", "LiteOutputs": "tabml.edge.results",
    "LmSpeed": "tabml.edge.lm", "ModelMetadata": "tabml._litert.metadata", "OperatorTime": "tabml.edge.results",
    "Profile": "tabml.edge.results", "Signature": "tabml._litert.specs", "TensorMetadata": "tabml._litert.metadata",
    "TensorSpec": "tabml._litert.specs",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
