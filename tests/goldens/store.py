"""Seeded values, and files written the same way every time."""
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
LIMIT_BYTES = 4 * 1024 * 1024  # of this folder, see README.md

_DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8"}


class Source:
    """Random tensors that depend on a name and the order of the draws, nothing else."""

    def __init__(self, name):
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def normal(self, *shape, scale=1.0):
        """fp32 values, so that what is stored is exactly what was used."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float32) * scale

    def integers(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def pixels(self, height, width, channels=3):
        """Smooth colour waves, a hard-edged rectangle and some noise: things on which resampling errors show."""
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        waves = self.normal(channels, 3, scale=0.35).double().numpy()
        image = np.stack([127 + 110 * np.sin(a * x + b * y + 6 * c) for a, b, c in waves], axis=-1)
        top, left = height // 4, width // 3
        image[top:top + height // 2, left:left + width // 4] = self.integers(0, 256, channels).numpy()
        image += self.normal(height, width, channels, scale=12).double().numpy()
        return image.clip(0, 255).astype(np.uint8)


def as_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


def to_array(value):
    """Stored form of a tensor: fp64 results are rounded to fp32, Python and 0-d scalars get shape [1]."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array.reshape(1) if array.ndim == 0 else array)


class Keep64:
    """Marks a tensor to be stored as F64."""

    def __init__(self, values):
        self.array = np.asarray(values, dtype=np.float64)


def save(stem, tensors, metadata=None):
    """Writes `<stem>.safetensors`: widest types first (so all are aligned), then by name; header padded to 8 bytes."""
    arrays = {k: (v.array if isinstance(v, Keep64) else to_array(v)) for k, v in tensors.items()}
    for name, array in arrays.items():
        finite = np.isfinite(array) if array.dtype.kind == "f" and not name.endswith(".mask") else np.array(True)
        assert finite.all(), f"{stem}: {name} has values that are not finite"
    header = {"__metadata__": {k: as_text(v) for k, v in sorted((metadata or {}).items())}}
    data, offset = [], 0
    for name in sorted(arrays, key=lambda n: (-arrays[n].dtype.itemsize, n)):
        blob = arrays[name].tobytes()
        header[name] = {"dtype": _DTYPES[arrays[name].dtype.name], "shape": list(arrays[name].shape),
                        "data_offsets": [offset, offset + len(blob)]}
        data.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = HERE / f"{stem}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    _read_back(path, arrays)


def _read_back(path, arrays):
    from safetensors.numpy import load_file
    read = load_file(path)
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[k], arrays[k], equal_nan=True) for k in arrays), path


def save_json(stem, value):
    """One record per line inside the lists, to keep the file short and its diffs readable."""
    def lines(items):
        return "[\n" + ",\n".join("  " + json.dumps(i, separators=(",", ":")) for i in items) + "\n ]"

    parts = [f' {json.dumps(k)}: ' + (lines(v) if isinstance(v, list) else json.dumps(v, separators=(",", ":"))) for k, v in value.items()]
    (HERE / f"{stem}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="ascii")


def flatten(cases):
    """{case: (tensors, metadata)} -> one tensor table and one metadata table, as the README describes."""
    tensors, metadata = {}, {"cases": list(cases)}
    for case, (values, settings) in cases.items():
        tensors.update({f"{case}.{k}": v for k, v in values.items()})
        metadata.update({f"{case}.{k}": v for k, v in settings.items()})
    return tensors, metadata
