"""Adapted language model goldens: transformers' OPTForCausalLM with the adapters of epalm.py in its layers, in fp64 with fp32 weights and results."""
import torch

from epalm import TEXT, adapter, attach_adapters, gradients, trainable_shapes, trainable_values
from opt import build_opt, random_batch, sample_sums
from store import Source, save

LENGTHS = [13, 4, 9]
CASES = {
    "adapted_mlp_normal": adapter("mlp", "normal"),
    "adapted_attn_scaled_parallel": adapter("attention", "scaled_parallel", layer_norm=True, text="epalm_opt_post"),
}


def make_adapted():
    torch.set_default_dtype(torch.float64)  # transformers builds its masks in the default type
    for name, settings in CASES.items():
        config = TEXT[settings["text"]]
        model = build_opt(settings["text"], config).requires_grad_(False)
        shapes = {k: v for k, v in trainable_shapes(settings).items() if "adapter" in k}
        stored = trainable_values(name, shapes, settings["adapter_layer_norm"])
        parameters = {k: v.double().requires_grad_() for k, v in stored.items()}
        attach_adapters(model.model.decoder.layers, settings, parameters)
        ids, mask, labels = random_batch(Source(f"{name}.inputs"), config["vocab_size"], LENGTHS)
        logits = model(input_ids=ids, attention_mask=mask, return_dict=True).logits
        sums, count = sample_sums(logits, labels)
        loss = sums.sum() / count  # transformers 5 computes its own in fp32
        kept = {k: settings[k] for k in settings if k.startswith("adapter_")} | {"text": settings["text"]}
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels, "logits": logits, "loss": loss}
        save(f"{name}_adapter", stored, kept)
        save(name, tensors | gradients(loss, parameters, ""), kept)
    torch.set_default_dtype(torch.float32)
