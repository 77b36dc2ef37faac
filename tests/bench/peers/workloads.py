"""What is trained: shapes, the configuration on our side, and how many samples a step has."""
from dataclasses import dataclass, field, replace

# Hugging Face's numbers: layers, width, heads, hidden width of the feed-forward part.
OPT_SIZES = {
    "tiny": (4, 64, 4, 128),
    "125m": (12, 768, 12, 3072),
    "1.3b": (24, 2048, 32, 8192),
    "2.7b": (32, 2560, 32, 10240),
    "6.7b": (32, 4096, 32, 16384),
}
# timm's numbers: blocks, width, heads; patches of 16 of images of 224 pixels, hidden width 4 times the width.
VIT_SIZES = {"tiny": (4, 48, 4), "b": (12, 768, 12), "l": (24, 1024, 16)}
PERMAFROST_OPT = {"125m": "OPT_125M", "1.3b": "OPT_1_3B", "2.7b": "OPT_2_7B", "6.7b": "OPT_6_7B"}
PERMAFROST_VIT = {"b": "VIT_B16", "l": "VIT_L16"}
VOCABULARY, POSITIONS = 50272, 2048
BATCH = 16  # samples of a step, all ranks together
BATCHES = 8  # that are different from each other; step k takes batch k modulo this
# Constant learning rate, no clipping: as little as possible that could differ in silence. The rate is a tenth of the published one: random frozen weights
# amplify rounding otherwise, and PyTorch differs from itself (other order of additions, fp32) by 5e-5 after 30 steps. At this one it is 3e-7.
ADAMW = {"lr": 2e-6, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.02}
LOSS_SCALE = 0.1
# CLIP's numbers, which the published code uses for every encoder.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Workload:
    name: str  # e1, e3, e4
    size: str  # of the text model: a key of OPT_SIZES
    tokens: int  # of each text, what the tokenizer adds included
    vision: str | None = None  # a key of VIT_SIZES
    prompts: int = 0
    features: int = 0
    window: tuple[int, int] = (0, 0)  # decoder layers before which a class token is written; the end is not one of them
    factor: int = 0  # width of the decoder over width of its adaptors; 0 for none
    batch: int = BATCH
    config: str = ""  # our configuration file, below configs/
    settings: tuple[str, ...] = field(default=())  # --set arguments for it

    @property
    def layers(self):
        """Of the decoder."""
        return OPT_SIZES[self.size][0]


def opt_settings(prefix, size):
    if size in PERMAFROST_OPT:
        return (f"{prefix}.size={PERMAFROST_OPT[size]}",)
    layers, width, heads, ffn = OPT_SIZES[size]
    numbers = {"size": "FREE", "vocab": VOCABULARY, "layers": layers, "hidden": width, "heads": heads, "ffn": ffn, "word_embed_proj_dim": width,
               "do_layer_norm_before": "true", "final_layer_norm": "true"}
    return tuple(f"{prefix}.{k}={v}" for k, v in numbers.items())


def vit_settings(prefix, size):
    if size in PERMAFROST_VIT:
        return (f"{prefix}.size={PERMAFROST_VIT[size]}",)
    depth, width, heads = VIT_SIZES[size]
    numbers = {"size": "FREE", "patch": 16, "dim": width, "depth": depth, "heads": heads, "mlp_dim": 4 * width}
    return tuple(f"{prefix}.{k}={v}" for k, v in numbers.items())


def epalm(size, tokens):
    """E1. Windows: published for 24 and 32 layers; configs/ says how that of 12 layers came about."""
    start, end = {"tiny": (1, 3), "125m": (5, 11), "1.3b": (11, 23), "2.7b": (19, 31), "6.7b": (19, 31)}[size]
    vision, features = {"tiny": ("tiny", 2), "6.7b": ("l", 6)}.get(size, ("b", 6))  # as published with the largest
    settings = (*opt_settings("model.epalm.text", size), *vit_settings("model.epalm.vision", vision),
                f"model.epalm.start_layer={start}", f"model.epalm.end_layer={end}", f"model.epalm.features={features}")
    return Workload("e1", size, tokens or 45, vision=vision, prompts=10, features=features, window=(start, end),
                    config="epalm_vitb_opt125m_coco.textproto", settings=settings)


def projector(size, tokens):
    """E3, on ViT-B with the smallest text model, else on ViT-L."""
    vision = {"tiny": "tiny", "125m": "b"}.get(size, "l")
    settings = (*opt_settings("model.projector.text", size), *vit_settings("model.projector.vision", vision), "model.projector.kind=LINEAR")
    return Workload("e3", size, tokens or 45, vision=vision, config="projector_vitb_opt125m_coco.textproto", settings=settings)


def adaptors(size, tokens):
    """E4: a bottleneck of a quarter of the width behind each feed-forward part."""
    settings = (*opt_settings("model.language_model.text", size), "model.language_model.adapter.kind=NORMAL", "model.language_model.adapter.location=MLP",
                "model.language_model.adapter.factor=4")
    return Workload("e4", size, tokens or 512, factor=4, batch=4, config="adaptors_opt125m.textproto", settings=settings)


MAKERS = {"e1": epalm, "e3": projector, "e4": adaptors}


def find(name, size=None, tokens=None, batch=None):
    """A workload by its name. Raises KeyError with the names there are."""
    if name == "e2":
        raise KeyError("workload: expected a model that is there; got e2 (Prismer), which joins when that model lands")  # E2: its maker goes above
    if name not in MAKERS:
        raise KeyError(f"workload: expected one of {', '.join(MAKERS)}; got {name}")
    size = size or "125m"
    if size not in OPT_SIZES:
        raise KeyError(f"size: expected one of {', '.join(OPT_SIZES)}; got {size}")
    workload = MAKERS[name](size, tokens)
    return replace(workload, batch=batch) if batch else workload
