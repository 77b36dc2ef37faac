"""The work folder: weights, images, texts and the start of what is trained, which both sides read.

    weights/vision, weights/text   safetensors, written by `permafrost weights random`; links, since workloads of one size share them
    adapter.safetensors            trainable parameters at step 0, under our names
    data/captions.json, data/images/*.png
"""
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer

import models
from workloads import BATCHES

BEGIN = 2  # </s>, in front of every text and behind it
IMAGE = 224


class Texts:
    """OPT's tokenizer from its two files."""

    def __init__(self, folder):
        self.tokenizer = ByteLevelBPETokenizer(str(Path(folder) / "vocab.json"), str(Path(folder) / "merges.txt"))
        self.vocabulary = self.tokenizer.get_vocab()

    def ids(self, text):
        return [BEGIN, *self.tokenizer.encode(text).ids, BEGIN]

    def words(self):
        """Words that are one token each with a blank in front, in the order of their ids."""
        found = sorted((i, t[1:]) for t, i in self.vocabulary.items() if t.startswith("\u0120") and t[1:].isascii() and t[1:].isalpha() and t[1:].islower())
        return [w for i, w in found if self.tokenizer.encode(" " + w).ids == [i]]


def random_text(words, tokens, random):
    """Exactly `tokens` tokens: `a` (one token without a blank) and words behind it, between the two that the tokenizer and the task add."""
    return " ".join(["a", *(words[i] for i in random.integers(0, len(words), tokens - 3))])


def smooth_image(random):
    """A random image of large patches, so that neighbouring pixels are alike as in photographs."""
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((IMAGE, IMAGE), Image.Resampling.BICUBIC)


def write_data(folder, workload, texts):
    random = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    words, images, annotations = texts.words(), [], []
    for i in range(BATCHES * workload.batch):
        caption = random_text(words, workload.tokens, random)
        got = len(texts.ids(caption))
        if got != workload.tokens:
            raise ValueError(f"texts: expected {workload.tokens} tokens in every text; got {got} in {caption!r}")
        name = f"{i:06d}.png"
        # Hardly compressed: our side decodes within its steps, and photographs are not what is compared.
        if workload.vision:
            smooth_image(random).save(folder / "images" / name, compress_level=0)
        images.append({"id": i, "file_name": name})
        annotations.append({"id": i, "image_id": i, "caption": caption})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def write_adapter(path, workload):
    """Trainable parameters: published initialisers, but adaptors that start at something, so that a gradient reaches both of their layers."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for name, shape in models.trainable_shapes(workload).items():
        if name.endswith("prefix_embedding.0.weight"):
            tensors[name] = torch.randn(shape, generator=generator)
        elif ".adapter." in name:
            tensors[name] = (1e-3 * torch.randn(shape, generator=generator)).clamp(-2e-3, 2e-3)  # the published initialiser of adaptors
        else:  # nn.Linear's
            fan_in = shape[-1] if len(shape) > 1 else models.trainable_shapes(workload)[name.replace("bias", "weight")][-1]
            tensors[name] = (2 * torch.rand(shape, generator=generator) - 1) / fan_in**0.5
    save_file(tensors, path)


@contextlib.contextmanager
def locked(folder):
    """Of runs that prepare at once, one fills a folder; the others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_weights(work, workload, dtype, program, config):
    """Beside the folders of the workloads, once for each pair of experts; a text model alone is also there where it was written with an encoder.
    Values depend on names, shapes and the seed, which are the same in all our configurations."""
    folder = work / f"weights-{workload.size}-{workload.vision or 'none'}-{dtype}"
    with locked(folder):
        kept = sorted(work.glob(f"weights-{workload.size}-{workload.vision or '*'}-{dtype}/complete"))
        if kept:
            return kept[0].parent
        shutil.rmtree(folder, ignore_errors=True)
        settings = [f"--set={s}" for s in workload.settings]
        command = [program, "weights", "random", str(config), *settings, "--out", str(folder), "--dtype", {"fp32": "f32", "bf16": "bf16"}[dtype]]
        subprocess.run([*command, f"--set=data.root={work}"], check=True, stdout=subprocess.DEVNULL)
        (folder / "complete").write_text("")
    return folder


def make(folder, workload, dtype, program, config, tokenizer):
    """Fills the folder unless it is whole already. dtype of the weight files: that of the computation."""
    folder = Path(folder)
    with locked(folder):
        if (folder / "complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "weights").symlink_to(write_weights(folder.parent, workload, dtype, program, config).resolve())
        write_data(folder / "data", workload, Texts(tokenizer))
        write_adapter(folder / "adapter.safetensors", workload)
        (folder / "complete").write_text("")
    return folder


def tokenizer_folder():
    data = os.environ.get("PERMAFROST_TEST_DATA")
    if not data or not (Path(data) / "tokenizers/opt/vocab.json").exists():
        raise FileNotFoundError("PERMAFROST_TEST_DATA: expected a folder with tokenizers/opt/vocab.json and merges.txt; got " + str(data))
    return Path(data) / "tokenizers/opt"
