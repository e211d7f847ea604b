"""Networks in ONNX files, in batches, by onnxruntime; weights in other files are refused."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.errors import WeightsError
from spfem_bench.extras import extra
from spfem_bench.machine import processors
from spfem_bench.networks.load import BatchFunction
from spfem_bench.networks.weights import wrong_weights

# Version 1.32 sends usage data to its makers unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
with extra("networks", "a network in ONNX format"):
    import onnx
    import onnxruntime
    from onnx.external_data_helper import uses_external_data

_Array = npt.NDArray[np.float32]
_Run = Callable[[_Array], list[_Array]]
"""From pictures (B, 3, height, width) to outputs, each (B, ...)."""

ALIKE = 1e-4
"""Largest difference of a batch from its pictures one by one, as a part of the largest value."""


def parse_model(content: bytes, card: NetworkCard) -> Any:
    """Return the ``onnx.ModelProto`` in verified bytes; raise WeightsError for others."""
    try:
        model = onnx.load_model_from_string(content)
        empty = not model.graph.input or not model.graph.output
    except Exception as error:  # protobuf's errors have no common kind
        raise wrong_weights(card, error) from error
    if empty or any(uses_external_data(weights) for weights in _tensors(model.graph)):
        reason = "it is empty" if empty else "it keeps weights in other files"
        raise wrong_weights(card, ValueError(reason))
    return model


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield all constants of a graph, of its nodes, and of graphs in those."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def start(model: Any, card: NetworkCard, device: str = "cpu") -> tuple[_Run, bool]:
    """Return a function on (B, 3, height, width), and whether it computes batches as such.

    Many files declare a batch of one, and some mix a batch's pictures in their outputs: batches are
    used where two pictures of noise, one by one and together, give the same in one of
    :data:`LAYOUTS`. Raises WeightsError where onnxruntime cannot run the graph on that device.
    """
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    size = _size(card)
    if device == "cpu" and platform.machine() in BLOCKED:
        _replace_prelu(model.graph)
    expected = [3, *size]
    if [fixed or free for fixed, free in zip(shape[1:], expected, strict=False)] != expected:
        raise wrong_weights(card, ValueError(f"its input is {shape}, not {[0, *expected]}"))
    single = _session(model, card, device)
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 3, *size)).astype(np.float32)

    def one_by_one(pictures: _Array) -> list[_Array]:
        rows = [single(pictures[i : i + 1]) for i in range(len(pictures))]
        # The axis of a batch of one is dropped, where there is one.
        bare = [[r[0] if len(r) == 1 else r for r in row] for row in rows]
        return [np.stack(column) for column in zip(*bare, strict=True)]

    try:
        alone = one_by_one(noise)
    except Exception as error:
        raise wrong_weights(card, error) from error
    try:
        together = single if shape[0] == 0 else _session(_freed(model), card, device, quiet=True)
        outputs = together(noise)
    except Exception:  # the graph's batch is one; onnxruntime raises several kinds
        return one_by_one, False
    for part in LAYOUTS:
        parted = [part(output, 2, one[0]) for output, one in zip(outputs, alone, strict=True)]
        if all(p is not None and _alike(p, a) for p, a in zip(parted, alone, strict=True)):

            def batch(pictures: _Array, part: Any = part) -> list[_Array]:
                n = len(pictures)
                return [part(o, n, a[0]) for o, a in zip(together(pictures), alone, strict=True)]

            return batch, True
    return one_by_one, False


BLOCKED = ("x86_64", "AMD64")
"""Processors on which onnxruntime convolves in a blocked layout of channels."""


def _replace_prelu(graph: Any) -> None:
    """Replace PRelu by Relu(x) - slope * Relu(-x), which is equal bit by bit.

    onnxruntime has no PRelu in its blocked layout: it takes a fifth of ArcFace R50's time, and the
    change of layout 4 % more. Depthwise convolutions of one pixel, in that layout, multiply.
    """
    slopes = {weights.name: weights for weights in graph.initializer}
    nodes = []
    for node in graph.node:
        slope = None
        if node.op_type == "PRelu" and node.input[1] in slopes:
            slope = onnx.numpy_helper.to_array(slopes[node.input[1]])
        if slope is None or slope.ndim != 3 or slope.shape[1:] != (1, 1):  # not one by channel
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        channels = len(slope)
        for name, factors in (("minus", -np.ones_like(slope)), ("slope", -slope)):
            weights = factors.reshape(channels, 1, 1, 1)
            graph.initializer.append(onnx.numpy_helper.from_array(weights, f"{y}:{name}"))
        for kind, inputs, output in (
            ("Relu", [x], f"{y}:positive"),
            ("Conv", [x, f"{y}:minus"], f"{y}:turned"),
            ("Relu", [f"{y}:turned"], f"{y}:negative"),
            ("Conv", [f"{y}:negative", f"{y}:slope"], f"{y}:scaled"),
            ("Add", [f"{y}:positive", f"{y}:scaled"], y),
        ):
            how: dict[str, Any] = (
                {"kernel_shape": [1, 1], "group": channels} if kind == "Conv" else {}
            )
            nodes.append(onnx.helper.make_node(kind, inputs, [output], **how))
    del graph.node[:]
    graph.node.extend(nodes)


def _stacked(output: _Array, count: int, one: _Array) -> _Array | None:
    """Split outputs that have one picture after the other; a detector's rows may be any number."""
    tail = one.shape[1:] if one.ndim > 1 else one.shape
    if output.size % (count * math.prod(tail)):
        return None
    return output.reshape(count, *((-1, *tail) if one.ndim > 1 else tail))


def _interleaved(output: _Array, count: int, one: _Array) -> _Array | None:
    """Split rows in the order position, picture, anchor, as in insightface's detectors."""
    if one.ndim != 2 or output.size % (count * ANCHORS * one.shape[1]):
        return None
    rows = output.reshape(-1, count, ANCHORS, one.shape[1])
    return rows.transpose(1, 0, 2, 3).reshape(count, -1, one.shape[1])


ANCHORS = 2
LAYOUTS: Sequence[Callable[[_Array, int, _Array], _Array | None]] = (_stacked, _interleaved)


def _alike(a: _Array, b: _Array) -> bool:
    close = a.shape == b.shape and np.abs(a - b).max() <= ALIKE * max(float(np.abs(b).max()), 1e-6)
    return bool(close)


def _size(card: NetworkCard) -> tuple[int, int]:
    """Return the height and width of a network's pictures."""
    if card.input.crop == "frame":
        return card.input.long_side, card.input.long_side
    if card.input.crop == "arcface":
        return 112, card.input.width
    return card.input.size, card.input.size


def _freed(model: Any) -> Any:
    """Return a copy of a graph whose first axis has any length."""
    free = type(model)()
    free.CopyFrom(model)
    free.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del free.graph.value_info[:]
    for output in free.graph.output:
        output.type.tensor_type.ClearField("shape")
    return free


def _session(model: Any, card: NetworkCard, device: str, *, quiet: bool = False) -> _Run:
    """Return a function that runs a graph; *quiet* where failing is one of two good ends."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4 if quiet else 3
    # As many threads as torch, which is not imported for that.
    torch = sys.modules.get("torch")
    wanted = int(os.environ.get("OMP_NUM_THREADS") or processors())
    options.intra_op_num_threads = torch.get_num_threads() if torch else wanted
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    kind, _, number = device.partition(":")
    provider = "CUDAExecutionProvider" if kind == "cuda" else "CPUExecutionProvider"
    # As elsewhere, full float32: TF32 would move scores in the third digit.
    settings = {"device_id": int(number or 0), "use_tf32": 0} if kind == "cuda" else {}
    if provider not in onnxruntime.get_available_providers():
        problem = f"the onnxruntime that is installed cannot run '{card.name}' on {device}"
        raise WeightsError(problem, "Install onnxruntime-gpu in its place, or use --device cpu")
    if kind == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what it does not find
            onnxruntime.preload_dlls()  # CUDA and cuDNN of Python packages, such as torch's
    try:
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, [(provider, settings)])
    except Exception as error:  # onnxruntime's errors have no common kind
        raise wrong_weights(card, error) from error
    if session.get_providers()[0] != provider:  # onnxruntime falls back without an error
        problem = f"onnxruntime did not start '{card.name}' on {device}"
        raise WeightsError(problem, "Check its CUDA and cuDNN libraries, or use --device cpu")
    name = session.get_inputs()[0].name

    def run(pictures: _Array) -> list[_Array]:
        outputs: list[_Array] = session.run(None, {name: pictures})
        return outputs

    return run


def scaled(pictures: npt.NDArray[np.generic], mean: Any, std: Any) -> _Array:
    """Turn uint8 (B, height, width, 3) into float32 (B, 3, height, width), (x - mean) / std."""
    values = pictures.astype(np.float32)
    values -= np.asarray(mean, np.float32)
    values /= np.asarray(std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


_SINGLE = {"arcface-onnx": "embedding", "landmarks-onnx": "points", "hsemotion-onnx": "features"}
"""The name of the only output."""


@ARCHITECTURES.register("arcface-onnx", runtime="onnxruntime")
@ARCHITECTURES.register("hsemotion-onnx", runtime="onnxruntime")
@ARCHITECTURES.register("landmarks-onnx", runtime="onnxruntime")
def crops_network(
    card: NetworkCard, contents: Sequence[bytes], device: str = "cpu"
) -> Mapping[str, BatchFunction]:
    """Load a network on crops: ``{"crops": f}``, f from uint8 (B, height, width, 3) RGB to outputs.

    ``arcface-onnx`` has one output, ``embedding``, and ``landmarks-onnx`` has ``points``, x and y
    in turn, in sides of the crop. The input of ``hsemotion-onnx``'s last layer are
    its ``features``, and the softmax of its output ``probabilities``, as in EmotiEffLib.
    """
    model = parse_model(contents[0], card)
    if len(model.graph.output) != 1:
        raise wrong_weights(card, ValueError(f"it has {len(model.graph.output)} outputs, not one"))
    if card.architecture == "hsemotion-onnx":
        _add_features(model, card)
    run, _ = start(model, card, device)
    black = scaled(np.zeros((1, *_size(card), 3), np.uint8), 0, 1)
    widths = [o.shape[1:] for o in run(black)]
    names = ["probabilities", "features"] if len(widths) == 2 else [_SINGLE[card.architecture]]
    if dict(zip(names, widths, strict=True)) != {n: (w,) for n, w in card.outputs.items()}:
        raise wrong_weights(card, ValueError(f"its outputs are {widths}, not {card.outputs}"))
    mean, std = card.input.mean, card.input.std  # type: ignore[union-attr]

    def function(batch: npt.NDArray[np.generic]) -> Mapping[str, _Array]:
        outputs = dict(zip(names, run(scaled(batch, mean, std)), strict=True))
        if "probabilities" in outputs:
            logits = outputs["probabilities"]
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            outputs["probabilities"] = powers / powers.sum(axis=1, keepdims=True)
        return outputs

    return {"crops": function}


def _add_features(model: Any, card: NetworkCard) -> None:
    """Make the last layer's input a second output."""
    graph = model.graph
    last = next((n for n in graph.node if graph.output[0].name in n.output), None)
    if last is None or last.op_type != "Gemm":
        raise wrong_weights(card, ValueError("it does not end in a fully connected layer"))
    kind = onnx.TensorProto.FLOAT
    graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], kind, None))
