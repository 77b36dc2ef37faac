"""The batches of PyTorch's side, made ahead of time: decoding and tokenising are not in its timed steps."""
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from workloads import BATCHES, DEVIATION, MEAN


def read_images(files):
    """[B, 3, 224, 224] fp32, normalised. The files have the size of the model already, so nothing is resized."""
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    values = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


class Batches:
    """This rank's part of every batch: {"images": [b,3,224,224] in the compute dtype, "ids": [b,T]}. Made before the clock of a step starts."""

    def __init__(self, folder, workload, texts, rank, ranks, dtype, device):
        self.folder, self.workload, self.texts, self.dtype, self.device = Path(folder), workload, texts, dtype, device
        self.annotations = json.loads((self.folder / "captions.json").read_text())["annotations"]
        self.share = workload.batch // ranks
        self.first = rank * self.share
        self.kept = {}

    def at(self, step):
        """On a GPU each is made once and stays there: a copy would make the host wait, and the device for the host, which a loader of one's own does not."""
        index = step % BATCHES
        if self.device.type == "cpu":
            return self.make(index)
        if index not in self.kept:
            self.kept[index] = self.make(index)
        return dict(self.kept[index])

    def make(self, step):
        begin = step % BATCHES * self.workload.batch + self.first
        rows = self.annotations[begin : begin + self.share]
        batch = {"ids": torch.tensor([self.texts.ids(r["caption"]) for r in rows]).to(self.device)}
        if self.workload.vision:
            images = read_images([self.folder / "images" / f"{r['image_id']:06d}.png" for r in rows])
            batch["images"] = images.to(self.dtype).to(self.device)
        return batch
