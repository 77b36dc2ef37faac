"""Tiny image files of every kind we must read, and the pixels Pillow sees in them."""
import io

import numpy as np
from PIL import Image, ImageOps

from store import HERE, Source, save

FOLDER = HERE / "jpeg_png"


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def palette_images(source):
    index = Image.fromarray(source.integers(0, 6, 9, 13).byte().numpy(), mode="P")
    index.putpalette(source.integers(0, 256, 18).byte().numpy().tobytes())
    return index


def sixteen_bit(source):
    """Grey from 0 to 65535 with the small values well represented: they show whether a reader shifts or clips."""
    ramp = np.linspace(0, 65535, 7 * 11).reshape(7, 11)
    ramp[0] = [0, 1, 2, 127, 128, 254, 255, 256, 257, 511, 65535]
    return Image.fromarray(ramp.astype(np.uint16))


def rgba(source):
    colours = source.pixels(8, 10)
    alpha = source.integers(0, 256, 8, 10).byte().numpy()
    alpha[0], alpha[1] = 0, 255
    return Image.fromarray(np.dstack([colours, alpha]), mode="RGBA")


def files():
    """{file name: (image, save options)}"""
    source = Source("images")
    photo = Image.fromarray(source.pixels(19, 26))
    grey = photo.convert("L")
    table = {
        "grey.png": (grey, {}),
        "grey_alpha.png": (Image.merge("LA", (grey, Image.fromarray(source.integers(0, 256, 19, 26).byte().numpy()))), {}),
        "one_bit.png": (grey.convert("1"), {}),
        "grey16.png": (sixteen_bit(source), {}),
        "rgb.png": (photo, {}),
        "rgba.png": (rgba(source), {}),
        "palette.png": (palette_images(source), {}),
        "palette_transparent.png": (palette_images(source), {"transparency": 2}),
        "rgb_transparent_colour.png": (photo, {"transparency": photo.getpixel((3, 3))}),
        "one_pixel.png": (photo.crop((4, 4, 5, 5)), {}),
        "rgb.jpg": (photo, {"quality": 85}),
        "rgb_444.jpg": (photo, {"quality": 95, "subsampling": 0}),
        "rgb_422.jpg": (photo, {"quality": 80, "subsampling": 1}),
        "grey.jpg": (grey, {"quality": 85}),
        "progressive.jpg": (photo, {"quality": 75, "progressive": True}),
        "cmyk.jpg": (photo.convert("CMYK"), {"quality": 90}),
        "one_pixel.jpg": (photo.crop((4, 4, 5, 5)), {"quality": 85}),
    }
    for value in range(1, 9):
        table[f"orientation_{value}.jpg"] = (photo.crop((0, 0, 17, 10)), {"quality": 90, "exif": with_orientation(value)})
    table["orientation_6.png"] = (photo.crop((0, 0, 17, 10)), {"exif": with_orientation(6)})
    return table


def make_images():
    FOLDER.mkdir(exist_ok=True)
    tensors, metadata, table = {}, {}, files()
    for name, (image, options) in table.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if name.endswith("png") else "JPEG", **options)
        (FOLDER / name).write_bytes(buffer.getvalue())
        opened = Image.open(FOLDER / name)
        tensors[f"{name}.rgb"] = np.asarray(opened.convert("RGB"))
        orientation = opened.getexif().get(0x0112, 1)
        if orientation != 1:
            tensors[f"{name}.oriented"] = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        metadata |= {f"{name}.mode": opened.mode, f"{name}.orientation": orientation}
    save("images", tensors, metadata | {"files": list(table)})
