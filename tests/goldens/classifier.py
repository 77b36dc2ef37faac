"""Vision classifier goldens: timm's VisionTransformer with its head read as several choices, in fp64."""
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from store import Source, save
from vit import EPS, fill, weights_of

CONFIG = {"img_size": 16, "patch_size": 8, "in_chans": 3, "dim": 9, "depth": 1, "heads": 3, "mlp_dim": 18, "eps": EPS, "labels": 3, "classes": 5}


def make_classifier():
    name, c = "classifier_small", CONFIG
    model = VisionTransformer(img_size=c["img_size"], patch_size=c["patch_size"], in_chans=c["in_chans"], num_classes=c["labels"] * c["classes"],
                              embed_dim=c["dim"], depth=c["depth"], num_heads=c["heads"], mlp_ratio=c["mlp_dim"] / c["dim"])
    fill(model, Source(name))
    model.eval()
    source = Source(f"{name}.inputs")
    images = source.normal(3, c["in_chans"], c["img_size"], c["img_size"])
    labels = source.integers(0, c["classes"], 3, c["labels"])
    labels[1, 2] = -100  # an image without that label
    logits = model(images.double()).view(3, c["labels"], c["classes"])
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    loss.backward()
    correct = (logits.argmax(-1) == labels).sum()
    tensors = {"images": images, "labels": labels, "logits": logits, "loss": loss, "correct": correct}
    tensors.update({f"grad:{k}": p.grad for k, p in model.named_parameters()})
    save(f"{name}_weights", weights_of(model), c)
    save(name, tensors, c)
