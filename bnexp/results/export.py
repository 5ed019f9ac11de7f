"""The weights of a run for other programs: safetensors, and ONNX with its graph.

The metadata says all that is needed to use them: what the network reads, its classes, where it comes from.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnexp import __version__
from bnexp.config.schema import Config
from bnexp.data.network_input import NetworkInput
from bnexp.errors import UserError, describe
from bnexp.files import write_atomically
from bnexp.runs.summary import load_summary

ONNX_SUFFIX, WEIGHTS_SUFFIX = ".onnx", ".safetensors"
TOLERANCE = 1e-5  # between the logits of torch and of onnxruntime, relative to the largest one above 1


def describe_export(
    run: Path, config: Config, data: NetworkInput, checkpoint: str, state: dict[str, Any]
) -> dict[str, str]:
    """The metadata: texts, numbers and lists as JSON."""
    model, summary = config.model, load_summary(run)
    values = {
        "model": f"{model.target}({', '.join(f'{key}={value!r}' for key, value in model.keys.items())})",
        "dataset": config.dataset.name,
        "config_hash": str(summary.get("config_hash")),
        "checkpoint": f"{checkpoint}, after epoch {state.get('progress', {}).get('epoch')}",
        "bnexp": str(summary.get("version") or __version__),
        "resize": json.dumps(data.resize),
        "format": "pt",
    }
    values |= {name: json.dumps(value, ensure_ascii=False) for name, value in data.record().items()}
    # A class folder's name may be no UTF-8 text, and both formats hold nothing else.
    return {name: value.encode(errors="replace").decode() for name, value in values.items()}


def write_export(
    path: Path, network: nn.Module, data: NetworkInput, metadata: dict[str, str], *, typed_path: Path
) -> str:
    """Writes ``path``, in the format that its ending names. Its texts name ``typed_path``.

    Raises UserError where it cannot be written, and for ONNX where a package is missing, the network cannot
    be exported, or onnxruntime computes other logits.
    """
    if path.suffix == ONNX_SUFFIX:
        content, text = _onnx(path, network, data, metadata), "the network as ONNX"
    else:
        from safetensors.torch import save

        weights = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
        content, text = save(weights, metadata), f"{len(weights)} tensors"
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise UserError(f"--export={typed_path}: cannot be written ({error.strerror})") from error
    return f"{text} in {typed_path}"


def is_export(path: Path) -> bool:
    """Whether ``write_export`` wrote this file."""
    if not path.is_file():  # a device: it would be replaced
        return False
    if path.suffix == ONNX_SUFFIX:
        return b"config_hash" in path.read_bytes()[-(1 << 20) :]  # its metadata stand at the end
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return "config_hash" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def check_can_export(path: Path) -> None:
    """Raises UserError for an ending of no format, and where a package for ONNX is missing."""
    if path.suffix not in (ONNX_SUFFIX, WEIGHTS_SUFFIX):
        raise UserError(f"--export={path}: must end in {WEIGHTS_SUFFIX} or {ONNX_SUFFIX}")
    if path.suffix != ONNX_SUFFIX:
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--export={path}: {error.name} is not installed; pip install -e '.[onnx]' in a clone brings it"
        ) from None


def _onnx(path: Path, network: nn.Module, data: NetworkInput, metadata: dict[str, str]) -> bytes:
    """The network as a graph from images (N, C, S, S) to logits (N, classes), checked with onnxruntime."""
    check_can_export(path)
    import onnx

    shape = (data.channels, data.image_size, data.image_size)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    printed = io.StringIO()  # torch reports its progress to the console
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (images,), input_names=["images"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), dynamo=True, verbose=False,
            )  # fmt: skip
            assert program is not None
            graph = program.model_proto
    except Exception as error:  # torch raises many types for what it cannot export
        raise UserError(
            f"--export={path}: torch cannot export this network ({describe(error)[:200]})"
        ) from error
    onnx.helper.set_model_props(graph, {k: v for k, v in metadata.items() if k != "format"})
    content = bytes(graph.SerializeToString())
    _check_with_onnxruntime(path, content, network, images)
    return content


def _check_with_onnxruntime(path: Path, content: bytes, network: nn.Module, images: torch.Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (images, images[:1]):
        with torch.inference_mode():
            logits = network(batch)
        result = torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])
        difference = float((result - logits).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(logits.abs().max())):
            raise UserError(f"--export={path}: onnxruntime computes other logits (by {difference:.2g})")
