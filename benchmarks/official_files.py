"""Random, seeded weights in files of the official formats, with the official architectures.

The real files cannot be passed on. Their cost does not depend on their values, so these have the
same layers, shapes, names of inputs and outputs, as far as they are public: ``det_10g.onnx``
(SCRFD-10G with points), ``w600k_r50.onnx`` (IResNet-50), ``enet_b0_8_best_vgaf.onnx``
(EfficientNet-B0) and ``sfd_face.pth`` (S3FD). Batch normalisation is folded into convolutions, as
it is in the official files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from spfem_bench.faces.track import Face

DET_10G = {
    8: ("448", "451", "454"),
    16: ("471", "474", "477"),
    32: ("494", "497", "500"),
}
"""Names of scores, boxes and points in det_10g.onnx, by stride."""


@dataclass(frozen=True)
class Files:
    """A folder of them.

    Attributes:
        folder: holds ``det_10g.onnx``, ``w600k_r50.onnx``, ``enet_b0_8_best_vgaf.onnx``,
            ``sfd_face.pth`` and ``syncnet.model``.
    """

    folder: Path

    @property
    def models(self) -> Path:
        """A folder as insightface's ``buffalo_l``: the detector and ArcFace alone."""
        pack = self.folder / "buffalo_l"
        if not pack.is_dir():
            pack.mkdir()
            for name in ("det_10g.onnx", "w600k_r50.onnx"):
                (pack / name).symlink_to(self.folder / name)
        return pack

    @property
    def s3fd(self) -> Path:
        """S3FD's ``sfd_face.pth``."""
        return self.folder / "sfd_face.pth"

    @property
    def expression(self) -> Path:
        """HSEmotion's network."""
        return self.folder / "enet_b0_8_best_vgaf.onnx"

    @property
    def sync(self) -> Path:
        """SyncNet's ``syncnet_v2.model``."""
        return self.folder / "syncnet.model"


@dataclass
class Graph:
    """An ONNX graph in the making; counts what it costs.

    Attributes:
        weights: numbers in it.
    """

    seed: int
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    weights: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"c{len(self.constants)}"
        array = np.asarray(value, kind)
        self.weights += array.size
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, to: str | None = None, **how: Any) -> str:
        """Add a node; return its output's name, which is *to* where given."""
        name = to or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **how))
        return name

    def to_float(self, numbers: str) -> str:
        """Add a cast to float32; return its output's name."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [numbers], [name], to=TensorProto.FLOAT))
        return name

    def conv(
        self,
        x: str,
        given: int,
        out: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        scale: float = 1.0,
    ) -> str:
        """Add a convolution with its folded batch normalisation."""
        fan = given // groups * kernel**2
        shape = (out, given // groups, kernel, kernel)
        weights = self.rng.normal(0, scale * np.sqrt(2 / fan), shape)
        return self.node(
            "Conv",
            x,
            self.constant(weights),
            self.constant(self.rng.normal(0, 0.01, out)),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def dense(self, x: str, given: int, out: int, *, to: str | None = None) -> str:
        """Add a fully connected layer."""
        weights = self.rng.normal(0, np.sqrt(1 / given), (out, given))
        bias = self.constant(self.rng.normal(0, 0.01, out))
        return self.node("Gemm", x, self.constant(weights), bias, to=to, transB=1)

    def model(self, name: str, shape: list[Any], outputs: dict[str, list[Any]]) -> bytes:
        """Return the file."""
        made = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        content: ModelProto = helper.make_model(
            made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
        )
        return bytes(content.SerializeToString())


def w600k_r50(seed: int) -> bytes:
    """Return an IResNet-50 (Duta et al., 2020): insightface's ``w600k_r50.onnx``."""
    g = Graph(seed)

    def prelu(x: str, channels: int) -> str:
        return g.node("PRelu", x, g.constant(np.full((channels, 1, 1), 0.25)))

    def normed(x: str, channels: int) -> str:
        ones, zeros = np.ones(channels), np.zeros(channels)
        return g.node("BatchNormalization", x, *(g.constant(v) for v in (ones, zeros, zeros, ones)))

    x = prelu(g.conv("input.1", 3, 64, 3), 64)
    given = 64
    for blocks, out in ((3, 64), (4, 128), (14, 256), (3, 512)):
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            short = g.conv(x, given, out, 1, stride) if block == 0 else x
            y = prelu(g.conv(normed(x, given), given, out, 3), out)
            x = g.node("Add", g.conv(y, out, out, 3, stride, scale=0.3), short)
            given = out
    x = g.node("Flatten", normed(x, 512))
    g.dense(x, 512 * 7 * 7, 512, to="683")
    return g.model("input.1", ["None", 3, 112, 112], {"683": [1, 512]})


def enet_b0(seed: int) -> bytes:
    """Return an EfficientNet-B0 (Tan and Le, 2019) of eight classes, as HSEmotion's files."""
    g = Graph(seed)

    def silu(x: str) -> str:
        return g.node("Mul", x, g.node("Sigmoid", x))

    x, given = silu(g.conv("input", 3, 32, 3, 2)), 32
    stages = (
        (1, 16, 3, 1, 1),
        (6, 24, 3, 2, 2),
        (6, 40, 5, 2, 2),
        (6, 80, 3, 2, 3),
        (6, 112, 5, 1, 3),
        (6, 192, 5, 2, 4),
        (6, 320, 3, 1, 1),
    )
    for expand, out, kernel, first, blocks in stages:
        for block in range(blocks):
            stride = first if block == 0 else 1
            wide = given * expand
            y = silu(g.conv(x, given, wide, 1)) if expand > 1 else x
            y = silu(g.conv(y, wide, wide, kernel, stride, groups=wide))
            squeezed = silu(g.conv(g.node("GlobalAveragePool", y), wide, given // 4, 1))
            gate = g.node("Sigmoid", g.conv(squeezed, given // 4, wide, 1))
            y = g.conv(g.node("Mul", y, gate), wide, out, 1, scale=0.7)
            x = g.node("Add", y, x) if stride == 1 and given == out else y
            given = out
    x = silu(g.conv(x, given, 1280, 1))
    g.dense(g.node("Flatten", g.node("GlobalAveragePool", x)), 1280, 8, to="output")
    return g.model("input", ["batch_size", 3, 224, 224], {"output": ["batch_size", 8]})


def det_10g(face: Face, size: int, seed: int) -> bytes:
    """Return a SCRFD-10G with points (Guo et al., ICLR 2022): insightface's ``det_10g.onnx``.

    Random weights find nothing, and what follows a face would not run. So all outputs are what
    the layers give times a millionth, plus values that say: one face, here, in every picture,
    whatever size the picture is searched at.

    Args:
        face: that face, in pixels.
        size: side of the square pictures that *face* refers to.
        seed: of the weights.
    """
    g = Graph(seed)

    def conv(x: str, given: int, out: int, kernel: int = 3, stride: int = 1) -> str:
        return g.node("Relu", g.conv(x, given, out, kernel, stride))

    x = conv(conv(conv("input.1", 3, 28, stride=2), 28, 28), 28, 56)
    x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    given, maps = 56, []
    for blocks, out in ((3, 56), (4, 88), (2, 88), (3, 224)):
        for block in range(blocks):
            stride = 2 if block == 0 and maps else 1
            short = x
            if stride == 2:
                short = g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            if given != out or stride == 2:
                short = g.conv(short, given, out, 1)
            y = g.conv(conv(x, given, out, stride=stride), out, out, 3, scale=0.3)
            x = g.node("Relu", g.node("Add", y, short))
            given = out
        maps.append(x)
    sides = [g.conv(m, c, 56, 1) for m, c in zip(maps[1:], (88, 88, 224), strict=True)]
    for i in (1, 0):  # from the top down: twice the size, nearest
        twice = g.node("Resize", sides[i + 1], "", g.constant([1, 1, 2, 2]), mode="nearest")
        sides[i] = g.node("Add", sides[i], twice)
    levels = [g.conv(s, 56, 56, 3) for s in sides]
    for i in (0, 1):  # and up again
        levels[i + 1] = g.node("Add", levels[i + 1], g.conv(levels[i], 56, 56, 3, 2))
    levels = [levels[0], *(g.conv(m, 56, 56, 3) for m in levels[1:])]

    little = g.constant(1e-6)
    shape = g.node("Shape", "input.1")
    side = g.node("Gather", shape, g.constant([3], np.int64))
    scale = g.node("Div", g.to_float(side), g.constant([size]))
    middle = (face.box[:2] + face.box[2:]) / 2
    outputs: dict[str, list[Any]] = {}
    for stride, level in zip(DET_10G, levels, strict=True):
        cells = g.node("Div", side, g.constant([stride], np.int64))
        count = g.to_float(g.node("Reshape", cells, g.constant([], np.int64)))
        steps = g.node("Range", g.constant(0.0), count, g.constant(1.0))

        def in_cells(values: Any, stride: int = stride) -> str:
            return g.node("Mul", scale, g.constant(np.asarray(values) / stride))

        here, centre = [], []
        for value, along in zip(middle, ([1, 1, 1, -1], [1, 1, -1, 1]), strict=True):
            cell = g.node("Floor", in_cells([value]))
            hit = g.to_float(g.node("Equal", steps, cell))
            here.append(g.node("Reshape", hit, g.constant(along, np.int64)))
            centre.append(cell)
        mask, cell = g.node("Mul", *here), g.node("Concat", *centre, axis=0)
        left, right = (in_cells(part) for part in (face.box[:2], face.box[2:]))
        sides = (g.node("Sub", cell, left), g.node("Sub", right, cell))
        five = g.node("Sub", in_cells(face.points), cell)
        known = {
            1: g.constant([8.0 if stride == 8 else -8.0]),
            4: g.node("Concat", *sides, axis=0),
            10: g.node("Reshape", five, g.constant([-1], np.int64)),
        }
        x = conv(conv(conv(level, 56, 80), 80, 80), 80, 80)
        rows = 640 // stride
        for name, width in zip(DET_10G[stride], (1, 4, 10), strict=True):
            y = g.node("Mul", g.conv(x, 80, 2 * width, 3), little)
            other = np.full(2 * width, -8.0 if width == 1 else 1.0, np.float32)
            says = g.node("Concat", known[width], g.constant(other[width:]), axis=0)
            more = g.node("Sub", says, g.constant(other))
            more = g.node("Reshape", more, g.constant([1, -1, 1, 1], np.int64))
            says = g.node("Add", g.node("Mul", mask, more), g.constant(other.reshape(1, -1, 1, 1)))
            y = g.node("Add", y, says)
            y = g.node("Transpose", y, perm=[2, 3, 0, 1])
            y = g.node(
                "Reshape", y, g.constant([-1, width], np.int64), to=name if width != 1 else None
            )
            if width == 1:
                g.node("Sigmoid", y, to=name)
            outputs[name] = [2 * rows**2, width]
    order = [names[i] for i in range(3) for names in DET_10G.values()]
    return g.model("input.1", [1, 3, "?", "?"], {name: outputs[name] for name in order})


def sfd_face(seed: int) -> bytes:
    """Return weights of S3FD (Zhang et al., ICCV 2017) in the format of ``sfd_face.pth``.

    They are blind (the background's score is large everywhere): random ones would find thousands
    of faces, and thin them out for seconds, as no real detector has to.
    """
    import torch
    from syncnet_python.detectors.s3fd.nets import S3FDNet

    torch.manual_seed(seed)
    net = S3FDNet(device="cpu")
    with torch.no_grad():
        for layer in net.conf:
            layer.weight.mul_(1e-3)
            layer.bias.fill_(10.0)
            layer.bias[-1] = -10.0
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    return stream.getvalue()
