"""Attention by products: torch's own answers, and torch's own kernel where products would be no gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tabml.text._torch import attention

PADDED = torch.arange(9)[None] < torch.tensor([9, 4, 1])[:, None]
MASKS = {
    "none": None,
    "padding": PADDED[:, None, None, :].expand(3, 1, 9, 9),
    "added": torch.where(PADDED, 0.0, -1e9).bfloat16()[:, None, None, :].expand(3, 1, 9, 9),
}


def heads(*shape: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_products_answer_as_torch_does_in_float32(mask: str, scaling: float | None) -> None:
    q, k, v = heads(3, 4, 9, 32)
    plain = torch.nn.Module()
    given = MASKS[mask]
    exact = given.float() if given is not None and given.dtype != torch.bool else given
    options = {"scaling": scaling, "is_causal": False}
    ours, _ = attention._attend(plain, q, k, v, given, **options)
    theirs, _ = sdpa_attention_forward(plain, q.float(), k.float(), v.float(), exact, **options)
    assert ours.shape == theirs.shape == (3, 9, 4, 32)
    torch.testing.assert_close(ours.float(), theirs, atol=0.03, rtol=0.03)


def test_a_processor_that_does_not_multiply_bfloat16_is_left_to_torch(run_python: Callable[..., Any]) -> None:
    code = "from tabml.text._torch import attention; print(attention.multiplies_bfloat16())"
    assert run_python(code, ATEN_CPU_CAPABILITY="avx2").stdout.strip() == "False"


@pytest.mark.parametrize("case", ["causal", "long", "fewer keys", "grouped"])
def test_what_is_no_gain_is_left_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def theirs(*args: Any, **options: Any) -> tuple[torch.Tensor, None]:
        asked.append(case)
        return sdpa_attention_forward(*args, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", theirs)
    module = torch.nn.Module()
    module.is_causal = case == "causal"
    q, k, v = heads(1, 4, 600 if case == "long" else 9, 16)
    if case == "fewer keys":
        k, v = k[:, :, :5], v[:, :, :5]
    if case == "grouped":
        k, v, module.num_key_value_groups = k[:, :2], v[:, :2], 2
    found, _ = attention._attend(module, q, k, v, None)
    assert found.shape == (1, q.shape[2], 4, 16)
    assert asked == [case]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_in_bfloat16_alone_attend_so(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "multiplies_bfloat16", lambda: True)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.BertModel._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    ids, mask = torch.arange(18).view(2, 9), PADDED[:2].long()
    with torch.inference_mode():
        before = model(input_ids=ids, attention_mask=mask).last_hidden_state
        attention.attend_by_products(model)
        behind = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (model.config._attn_implementation == "sdpa") == (dtype == torch.float32)
    torch.testing.assert_close(behind[mask.bool()], before[mask.bool()], atol=0.06, rtol=0.06)
