"""The ten RandAugment operations eP-ALM trains with, as ALBEF defines them (OpenCV for the warps and the filter), each at a given value."""
import cv2
import numpy as np

LEVEL, MAX_LEVEL = 7, 10
FILL = (128, 128, 128)
SHARE = LEVEL / MAX_LEVEL
VALUES = {"Brightness": SHARE * 1.8 + 0.1, "Sharpness": SHARE * 1.8 + 0.1, "ShearX": SHARE * 0.3, "ShearY": SHARE * 0.3, "TranslateX": SHARE * 10, "TranslateY": SHARE * 10, "Rotate": SHARE * 30}
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
UNSIGNED = ("Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness")
INTENDED = ("AutoContrast.intended", "Sharpness.intended")


def per_channel(image, table_of):
    """Looks every channel up in a 256-entry table of its own; None leaves it as it is."""
    out = image.copy()
    for c in range(image.shape[2]):
        table = table_of(image[:, :, c])
        if table is not None:
            out[:, :, c] = table[image[:, :, c]]
    return out


def autocontrast_table(channel, published=True):
    """The published code negates the u8 minimum, which wraps to 256 - minimum: a channel whose minimum is not 0 turns (nearly) white."""
    low, high = int(channel.min()), int(channel.max())
    if high <= low:
        return None
    scale = 255 / (high - low)
    offset = (-low % 256 if published else -low) * scale
    return (np.arange(256) * scale + offset).clip(0, 255).astype(np.uint8)


def equalize_table(channel):
    counts = np.bincount(channel.ravel(), minlength=256).astype(np.int64)
    used = counts[counts > 0]
    step = int(used[:-1].sum()) // 255
    if step == 0:
        return None
    before = np.concatenate([[step // 2], counts[:-1]])
    return (np.cumsum(before) // step).clip(0, 255).astype(np.uint8)


def brightness(image, factor):
    return (np.arange(256, dtype=np.float32) * factor).clip(0, 255).astype(np.uint8)[image]


def sharpness(image, factor, clipped=False):
    """Away from (or towards) a 3x3 blur; the outermost pixels stay. The published code does not clip: the truncated value is taken modulo 256."""
    kernel = np.ones((3, 3), dtype=np.float32)
    kernel[1, 1] = 5
    blurred = cv2.filter2D(image, -1, kernel / 13).astype(np.float32)
    out = image.astype(np.float32)
    inner = (slice(1, -1), slice(1, -1))
    out[inner] = blurred[inner] + factor * (out[inner] - blurred[inner])
    return (out.clip(0, 255) if clipped else out.astype(np.int32)).astype(np.uint8)


def warp(image, matrix):
    height, width = image.shape[:2]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=FILL)


def apply(name, image, value=None):
    height, width = image.shape[:2]
    if name == "Identity":
        return image
    if name == "AutoContrast":
        return per_channel(image, autocontrast_table)
    if name == "AutoContrast.intended":
        return per_channel(image, lambda channel: autocontrast_table(channel, published=False))
    if name == "Equalize":
        return per_channel(image, equalize_table)
    if name == "Brightness":
        return brightness(image, value)
    if name == "Sharpness":
        return sharpness(image, value)
    if name == "Sharpness.intended":
        return sharpness(image, VALUES["Sharpness"], clipped=True)
    if name == "Rotate":
        return warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), value, 1))
    rows = {"ShearX": [[1, value, 0], [0, 1, 0]], "ShearY": [[1, 0, 0], [value, 1, 0]], "TranslateX": [[1, 0, -value], [0, 1, 0]], "TranslateY": [[1, 0, 0], [0, 1, -value]]}
    return warp(image, np.float32(rows[name]))
