"""Projector goldens: timm's ViT, all of whose patch tokens are projected and put in front of the text that transformers' OPT reads, in fp64 with fp32
weights and results. Backbones are those of epalm.py."""
import torch
from torch import nn

from epalm import TEXT, VISION, additive, affine, causal_visibility, gradients, linear_shapes, make_inputs, trainable_values, ROWS
from opt import build_opt, sample_sums
from store import save
from vit import build_vit, run_vit

# Which text goes with which: a random MLP in front of the post-LN text is ill-conditioned (rounding to bf16 alone moves its gradients by 31 %).
CASES = {"projector_linear": ("epalm_opt_post", False), "projector_mlp": ("epalm_opt_pre", True)}


def projector_shapes(text, mlp):
    width = text["hidden_size"]
    shapes = linear_shapes("projector", 0, width, VISION["dim"])
    return shapes | linear_shapes("projector", 2, width, width) if mlp else shapes


def project(patches, parameters, mlp):
    x = affine(patches, parameters, "projector.0")
    return affine(nn.functional.gelu(x), parameters, "projector.2") if mlp else x


def run_projector(vision, text, parameters, mlp, inputs):
    """All values by name. Image tokens come after project_in, where there is one, and have positions as the text has."""
    decoder = text.model.decoder
    with torch.no_grad():
        patches = run_vit(vision, inputs["images"].double())[3][:, 1:]
    image = project(patches, parameters, mlp)
    tokens = decoder.embed_tokens(inputs["input_ids"])
    hidden = torch.cat([image, tokens if decoder.project_in is None else decoder.project_in(tokens)], 1)
    keep = nn.functional.pad(inputs["attention_mask"], (image.shape[1], 0), value=1)
    hidden = hidden + decoder.embed_positions(keep, 0)
    values = {"projector.out": image, "text.embed.out": hidden}
    mask = additive(causal_visibility(keep))
    for index, layer in enumerate(decoder.layers):
        hidden = layer(hidden, attention_mask=mask)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # what it is depends on transformers' version
        values[f"text.layers.{index}.out"] = hidden
    if decoder.final_layer_norm is not None:
        hidden = decoder.final_layer_norm(hidden)
    if decoder.project_out is not None:
        hidden = decoder.project_out(hidden)
    logits = text.lm_head(hidden)
    if decoder.project_in is None:  # transformers itself takes such embeddings
        theirs = text(inputs_embeds=torch.cat([image, tokens], 1), attention_mask=keep).logits
        assert (theirs - logits).abs()[keep.bool()].max() < 1e-12, "our walk through the layers is not transformers'"
    return values | {"logits": logits}


def make_projector():
    torch.set_default_dtype(torch.float64)  # transformers builds its masks in the default type
    vision = build_vit("epalm_vit", VISION).requires_grad_(False)
    for name, (backbone, mlp) in CASES.items():
        text = build_opt(backbone, TEXT[backbone]).requires_grad_(False)
        stored = trainable_values(name, projector_shapes(TEXT[backbone], mlp))
        parameters = {k: v.double().requires_grad_() for k, v in stored.items()}
        inputs = make_inputs(name, ROWS)
        values = run_projector(vision, text, parameters, mlp, inputs)
        sums, count = sample_sums(values["logits"], inputs["labels"])
        loss = sums.sum() / count
        settings = {"vision": "epalm_vit", "text": backbone, "mlp": mlp}
        save(f"{name}_adapter", stored, settings)
        save(name, inputs | values | {"loss": loss} | gradients(loss, parameters, ""), settings)
    torch.set_default_dtype(torch.float32)
