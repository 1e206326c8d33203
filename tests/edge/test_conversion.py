"""PyTorch modules as .tflite files. What needs the converter runs in an environment of its own: `make test-convert`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.cli import main
from tabml.edge import Converted, LiteModel, convert, inspect_model, quantize
from tabml.errors import AccuracyDropError, InferenceError, ModelKindError, OptionError

ROOT = Path(__file__).parents[2]
FILE = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(32, 10), torch.nn.Softmax(-1),
        )

    def forward(self, pixels):
        return self.layers(pixels)


def make():
    torch.manual_seed(0)
    return Net().eval(), (torch.rand(1, 3, 32, 32),)


def training():
    return Net(), (torch.rand(1, 3, 32, 32),)
"""


def test_without_the_converter_the_command_that_brings_it_is_named(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        sys.modules["litert_torch"] = sys.modules["litert_converter"] = None
        from tabml.edge import convert
        from tabml.errors import MissingExtraError
        try:
            convert(object(), ())
        except MissingExtraError as problem:
            print(problem)
    """)
    assert "python -m pip install 'tabml[convert]'" in ended.stdout, ended.stderr


@pytest.mark.parametrize("limit", [0, -1, 2, float("nan"), True, "1"])
def test_limits_are_checked_before_anything_is_imported(limit: Any) -> None:
    with pytest.raises(OptionError, match="max_error="):
        convert(object(), (), max_error=limit)


@pytest.mark.convert
def test_a_file_of_pytorchs_runs_the_code_in_it_which_is_why_none_is_taken(tmp_path: Path) -> None:
    import torch

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "was here"),)

    class Same(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x + 1

    code = f"""
import sys, torch
torch.export.load({str(tmp_path / "b.pt2")!r})
"""
    torch.export.save(torch.export.export(Same(), (torch.zeros(2),)), tmp_path / "a.pt2")
    inputs = io.BytesIO()
    torch.save(((Harmful(),), {}), inputs)
    with zipfile.ZipFile(tmp_path / "a.pt2") as good, zipfile.ZipFile(tmp_path / "b.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, inputs.getvalue() if "sample_inputs" in name else good.read(name))
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=120)
    assert (tmp_path / "was here").is_dir()
    assert main(["edge", "convert", str(tmp_path / "b.pt2"), str(tmp_path / "out.tflite")]) == 1


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """What is in FILE."""
    names: dict[str, Any] = {"__name__": "nets"}
    exec(FILE, names)
    return names


@pytest.fixture(scope="module")
def small(nets: dict[str, Any]) -> Converted:
    return convert(
        *nets["make"](), evaluation=[(np.random.default_rng(at).random((1, 3, 32, 32), np.float32),) for at in range(3)]
    )


@pytest.mark.convert
def test_a_module_answers_as_before(small: Converted, nets: dict[str, Any]) -> None:
    module, inputs = nets["make"]()
    with LiteModel(small.model) as model:
        assert [(spec.name, spec.shape) for spec in model.inputs] == [("args_0", (1, 3, 32, 32))]
        found = model.run({"args_0": inputs[0].numpy()})["output_0"]
    np.testing.assert_allclose(found, module(*inputs).detach().numpy(), atol=1e-6)
    assert small.error < 1e-5
    (output,) = small.comparison.outputs
    assert (output.kind, output.agreement, small.comparison.samples) == ("classes", 1, 4)
    assert small.comparison.bytes_before == sum(each.nbytes for each in [*module.parameters(), *module.buffers()])
    assert small.comparison.bytes_after == len(small.model)


@pytest.mark.convert
def test_inputs_by_name_several_outputs_and_whole_numbers() -> None:
    import torch

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(100, 64)
            self.layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

        def forward(self, ids: Any, mask: Any) -> Any:
            found = self.layer(self.table(ids), src_key_padding_mask=mask).mean(1)
            return {"vector": found, "rest": (found.argmax(-1), found * 2)}

    torch.manual_seed(0)
    sample = {"ids": torch.randint(0, 100, (1, 16)), "mask": torch.zeros(1, 16, dtype=torch.bool)}
    module = Words().eval()
    made = convert(module, sample)
    assert [each.kind for each in made.comparison.outputs] == ["values", "equal", "values"]
    with LiteModel(made.model) as model:
        assert {spec.name: str(spec.dtype) for spec in model.inputs} == {"ids": "int32", "mask": "bool"}
        found = list(
            model.run({"ids": sample["ids"].numpy().astype(np.int32), "mask": sample["mask"].numpy()}).values()
        )
    with torch.no_grad():
        expected = module(**sample)
    np.testing.assert_allclose(found[0], expected["vector"].numpy(), atol=1e-5)
    assert found[1] == expected["rest"][0].numpy()
    smaller = {recipe: quantize(made.model, recipe=recipe) for recipe in ("int8-dynamic", "int4")}
    assert smaller["int4"].comparison.bytes_after < smaller["int8-dynamic"].comparison.bytes_after < len(made.model) / 2
    assert "int4" in inspect_model(smaller["int4"].model).weights


@pytest.mark.convert
def test_what_answers_otherwise_is_refused_with_the_figures(nets: dict[str, Any]) -> None:
    with pytest.raises(
        AccuracyDropError, match=r"max_error=1e-12: 'output_0' is off by up to .* where the module's largest"
    ) as caught:
        convert(*nets["make"](), max_error=1e-12)
    assert 1e-12 < caught.value.drop < 1e-4


@pytest.mark.convert
def test_what_can_not_be_converted_says_why(nets: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    class Branches(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    class Strange(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.svd(x)[1]

    class Nothing(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return None

    square = (torch.eye(4),)
    for module, words in ((Branches(), "data-dependent"), (Strange(), "svd"), (Nothing(), "without a tensor")):
        with pytest.raises(ModelKindError, match=words):
            convert(module.eval(), square)
    module, _ = nets["make"]()
    with pytest.raises(OptionError, match=r"call module\.eval\(\) first"):
        convert(*nets["training"]())
    with pytest.raises(InferenceError, match="fails on the sample"):
        convert(module, square)
    for inputs in ((), {}, "abc", 3, ([1.0],)):
        with pytest.raises(OptionError, match="sample_inputs"):
            convert(module, inputs)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="must be a torch"):
        convert(3, square)
    assert capfd.readouterr() == ("", "")


@pytest.mark.convert
def test_the_command_converts_what_a_function_gives(tmp_path: Path, small: Converted) -> None:
    (tmp_path / "net.py").write_text(FILE)
    command = [sys.executable, "-m", "tabml", "edge", "convert", "net.py:make", "net.tflite"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "classes agree 1.0000" in ended.stdout
    assert inspect_model(tmp_path / "net.tflite").signatures[0].name == "serving_default"
    ended = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert json.loads(ended.stdout)["error"] < 1e-5
    (tmp_path / "net.tflite").unlink()
    for function, words in (("training", "in training mode"), ("gone", "no function")):
        command[-2] = f"net.py:{function}"
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert words in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "net.tflite").exists()
