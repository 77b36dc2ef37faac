"""Resize and transform goldens: Pillow, torchvision's order of steps, and the RandAugment operations."""
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import augment
from store import Source, flatten, save

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

RESIZES = [  # height, width, channels, out height, out width, box (left, upper, right, lower), bilinear too
    (23, 31, 3, 12, 12, None, True),
    (40, 17, 3, 9, 21, None, False),
    (12, 10, 3, 31, 29, None, True),
    (64, 48, 3, 7, 5, None, False),
    (33, 33, 3, 33, 33, None, False),
    (33, 20, 3, 33, 7, None, False),
    (20, 33, 3, 7, 33, None, False),
    (1, 1, 3, 5, 6, None, False),
    (1, 9, 3, 4, 4, None, True),
    (9, 2, 3, 1, 1, None, False),
    (50, 61, 3, 16, 24, None, False),
    (28, 26, 1, 15, 11, None, True),
    (30, 40, 3, 14, 14, (5.0, 4.0, 33.0, 25.0), True),
    (30, 40, 3, 14, 18, (2.5, 3.25, 30.75, 28.5), False),
    (16, 16, 3, 24, 24, (4.0, 4.0, 12.0, 12.0), False),
]


def to_pillow(array):
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def to_array(image):
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def extremes(source, height, width):
    """Black and white only: bicubic overshoots, so the clipping shows."""
    return (source.integers(0, 2, height, width, 3) * 255).to(torch.uint8).numpy()


def resize_case(src, height, width, box, bilinear):
    image = to_pillow(src)
    tensors = {"src": src, "bicubic": to_array(image.resize((width, height), Image.BICUBIC, box=box))}
    if bilinear:
        tensors["bilinear"] = to_array(image.resize((width, height), Image.BILINEAR, box=box))
    return tensors, {} if box is None else {"box": list(box)}


def make_resize():
    cases = {}
    for h, w, c, out_h, out_w, box, bilinear in RESIZES:
        name = f"{h}x{w}x{c}_to_{out_h}x{out_w}" + ("_box" if box else "")
        cases[name] = resize_case(Source(f"resize.{name}").pixels(h, w, c), out_h, out_w, box, bilinear)
    cases["extremes_down"] = resize_case(extremes(Source("resize.down"), 30, 30), 11, 13, None, False)
    cases["extremes_up"] = resize_case(extremes(Source("resize.up"), 8, 9), 25, 23, None, False)
    save("resize", *flatten(cases))


def to_float(array):
    return torch.from_numpy(array.copy()).permute(2, 0, 1).double() / 255


def normalise(array):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return (to_float(array) - mean) / std


def crop_resize(array, top, left, height, width, size):
    return to_array(tv.resized_crop(to_pillow(array), top, left, height, width, [size, size], InterpolationMode.BICUBIC))


def augmented(source):
    """{image: pixels}: an ordinary one, one of low contrast with an empty range, one of a single colour."""
    dull = (source.pixels(21, 27) // 3 + 60).astype(np.uint8)
    flat = np.full((16, 18, 3), 90, dtype=np.uint8)
    flat[:, :, 1] = 17
    return {"photo": source.pixels(25, 30), "dull": dull, "flat": flat, "noise": source.integers(0, 256, 12, 15, 3).to(torch.uint8).numpy()}


def check_against_pillow(image):
    """What the operations were meant to be: the intended variants equal Pillow's away from the border (whose smoothing differs)."""
    pillow, inner = to_pillow(image), (slice(1, -1), slice(1, -1))
    pairs = {"AutoContrast.intended": ImageOps.autocontrast(pillow), "Equalize": ImageOps.equalize(pillow), "Sharpness.intended": ImageEnhance.Sharpness(pillow).enhance(augment.VALUES["Sharpness"]),
             "Brightness": ImageEnhance.Brightness(pillow).enhance(augment.VALUES["Brightness"])}
    for op, theirs in pairs.items():
        assert np.array_equal(augment.apply(op, image, augment.VALUES.get(op))[inner], to_array(theirs)[inner]), op


def augment_tensors(source):
    tensors = {}
    for name, image in augmented(source).items():
        check_against_pillow(image)
        tensors[f"{name}.src"] = image
        for op in augment.UNSIGNED + augment.INTENDED:
            tensors[f"{name}.{op}"] = augment.apply(op, image, augment.VALUES.get(op))
        if name == "photo":
            for op in augment.SIGNED:
                tensors[f"{name}.{op}.plus"] = augment.apply(op, image, augment.VALUES[op])
                tensors[f"{name}.{op}.minus"] = augment.apply(op, image, -augment.VALUES[op])
    return tensors


def train_chain(source):
    src, stages = source.pixels(40, 52), {}
    stages["src"] = src
    stages["cropped"] = crop_resize(src, 5, 9, 29, 31, 24)
    stages["flipped"] = np.ascontiguousarray(stages["cropped"][:, ::-1])
    stages["first"] = augment.apply("ShearX", stages["flipped"], -augment.VALUES["ShearX"])
    stages["second"] = augment.apply("Equalize", stages["first"])
    stages["out"] = normalise(stages["second"])
    return {f"train.{k}": v for k, v in stages.items()}


def make_transforms():
    source = Source("transforms")
    base, photo = source.pixels(9, 11), source.pixels(45, 30)
    resized = to_array(tv.resize(to_pillow(photo), [20, 20], InterpolationMode.BICUBIC))
    tensors = {"to_float.src": base, "to_float.out": to_float(base), "normalise.src": base, "normalise.out": normalise(base), "hflip.src": base, "hflip.out": np.ascontiguousarray(base[:, ::-1]),
               "eval.src": photo, "eval.resized": resized, "eval.out": normalise(resized)}
    metadata = {"mean": list(MEAN), "std": list(STD), "fill": list(augment.FILL), "augment.level": augment.LEVEL, "train.crop.box": [5, 9, 29, 31], "train.crop.size": 24, "train.flip": True,
                "train.operations": ["ShearX.minus", "Equalize"]}
    for i, (top, left, height, width, size) in enumerate([(0, 0, 45, 30, 16), (3, 7, 22, 19, 20), (20, 10, 9, 12, 20), (44, 29, 1, 1, 8)]):
        tensors |= {"crop.src": photo, f"crop.{i}.out": crop_resize(photo, top, left, height, width, size)}
        metadata |= {f"crop.{i}.box": [top, left, height, width], f"crop.{i}.size": size}
    tensors |= augment_tensors(source) | train_chain(source)
    metadata |= {f"{op}.value": value for op, value in augment.VALUES.items()}
    save("transforms", tensors, metadata)
