"""eP-ALM goldens: our own composition of timm's ViT and transformers' OPT decoder layers, in fp64 with fp32 weights and results.

The model: class tokens of the last n ViT blocks, each through the final norm and a linear connector, become one extra token at position 0 of the
text in a window of late decoder layers (inserted at the first, overwritten at the later ones); optionally soft prompts in front of the text and
adapters in the decoder layers. Only connectors, prompts and adapters are trained.
"""
import torch
from torch import nn

from opt import BOS, PAD, build_opt, config_of, opt_weights, padded_batch, sample_sums
from store import Source, save
from vit import EPS, build_vit, run_vit, weights_of

VISION = {"img_size": 16, "patch_size": 8, "in_chans": 3, "dim": 12, "depth": 4, "heads": 3, "mlp_dim": 48, "eps": EPS}
TEXT = {
    "epalm_opt_pre": config_of(8, 16, 4, 24, 67, 32),
    "epalm_opt_post": config_of(6, 18, 3, 22, 67, 32, word=10, pre_norm=False),
}
ANSWER = 60
LOSS_SCALE = 0.1
MODES = ("open_published", "open_clean", "causal")


def variant(text="epalm_opt_pre", shared=True, prompt_len=0, prompt_mlp=False, start=1, end=7, features=3, **adapter):
    return {"vision": "epalm_vit", "text": text, "features": features, "shared_connector": shared, "connectors": 1 if shared else features, "start": start,
            "end": end, "prompt_len": prompt_len, "prompt_mlp": prompt_mlp, "pad_id": PAD, "answer_id": ANSWER, "loss_scale": LOSS_SCALE} | adapter


def adapter(location, kind, layer_norm=False, **others):
    return variant(adapter_location=location, adapter_type=kind, adapter_factor=4, adapter_layer_norm=layer_norm, **others)


POST = {"text": "epalm_opt_post", "start": 2, "end": 5}
VARIANTS = {
    "lin_shared": variant(),
    "lin": variant(shared=False),
    "pt": variant(prompt_len=3),
    "main": variant(shared=False, prompt_len=3, prompt_mlp=True),
    "post": variant(shared=False, prompt_len=3, prompt_mlp=True, **POST),
    "ada_mlp_normal": adapter("mlp", "normal"),
    "ada_mlp_normal_ln": adapter("mlp", "normal", layer_norm=True),
    "ada_mlp_parallel": adapter("mlp", "parallel"),
    "ada_mlp_scaled_parallel": adapter("mlp", "scaled_parallel"),
    "ada_attn_normal": adapter("attention", "normal"),
    "ada_attn_parallel": adapter("attention", "parallel"),
    "ada_attn_scaled_parallel": adapter("attention", "scaled_parallel"),
    "ada_post_attn_normal": adapter("attention", "normal", **POST),
    "ada_post_mlp_normal": adapter("mlp", "normal", **POST),
}
WINDOWS = {  # start, end, features
    "uneven": (1, 8, 3),
    "to_the_end": (2, 8, 3),
    "more_features_than_layers": (3, 5, 4),
    "last_repeats": (1, 6, 3),
    "from_the_first": (0, 4, 2),
    "one_feature": (2, 7, 1),
}


# ------------------------------------------------------------------------------------------- trainable parts

def linear_shapes(prefix, index, rows, columns):
    return {f"{prefix}.{index}.weight": (rows, columns), f"{prefix}.{index}.bias": (rows,)}


def adapter_prefix(settings, layer):
    place = {("mlp", "normal"): "fc2.1"}.get((settings["adapter_location"], settings["adapter_type"]), "fc2" if settings["adapter_location"] == "mlp" else "self_attn")
    return f"model_text.model.decoder.layers.{layer}.{place}"


def trainable_shapes(settings):
    """Published names and shapes of everything that is trained."""
    text = TEXT[settings["text"]]
    width, word, prompts = text["hidden_size"], text["word_embed_proj_dim"], settings["prompt_len"]
    shapes = {}
    for j in range(settings["connectors"]):
        shapes |= linear_shapes("connector", j, width, VISION["dim"])
    if prompts:
        shapes["prompt_module.prefix_embedding.0.weight"] = (prompts, word)
    if settings["prompt_mlp"]:
        shapes |= linear_shapes("prompt_module.prefix_embedding", 1, word, word) | linear_shapes("prompt_module.prefix_embedding", 3, word, word)
    if "adapter_type" not in settings:
        return shapes
    small = width // settings["adapter_factor"]
    first = 1 if settings["adapter_layer_norm"] else 0
    for layer in range(text["num_hidden_layers"]):
        prefix = adapter_prefix(settings, layer)
        if first:
            shapes |= {f"{prefix}.adapter.0.weight": (width,), f"{prefix}.adapter.0.bias": (width,)}
        shapes |= linear_shapes(f"{prefix}.adapter", first, small, width) | linear_shapes(f"{prefix}.adapter", first + 2, width, small)
        if settings["adapter_type"] == "scaled_parallel":
            shapes[f"{prefix}.adapter_scale"] = (1,)
    return shapes


def trainable_values(name, shapes, adapter_layer_norm=False):
    source, values = Source(f"epalm.{name}"), {}
    for key, shape in shapes.items():
        drawn = source.normal(*shape)
        if key.endswith("adapter_scale"):
            values[key] = 1 + 0.5 * drawn
        elif adapter_layer_norm and key.endswith("adapter.0.weight"):
            values[key] = 1 + 0.2 * drawn
        elif key.endswith("prefix_embedding.0.weight"):
            values[key] = drawn
        elif key.endswith("weight"):
            values[key] = drawn / shape[-1] ** 0.5
        else:
            values[key] = 0.2 * drawn
    return values


def affine(x, parameters, prefix):
    return nn.functional.linear(x, parameters[f"{prefix}.weight"], parameters[f"{prefix}.bias"])


def run_adapter(x, parameters, prefix, layer_norm):
    """Linear, ReLU, Linear, optionally behind a layer norm; no residual."""
    first = 0
    if layer_norm:
        x = nn.functional.layer_norm(x, x.shape[-1:], parameters[f"{prefix}.adapter.0.weight"], parameters[f"{prefix}.adapter.0.bias"])
        first = 1
    hidden = torch.relu(affine(x, parameters, f"{prefix}.adapter.{first}"))
    return affine(hidden, parameters, f"{prefix}.adapter.{first + 2}")


def attach_adapters(layers, settings, parameters):
    """Adapters as hooks on transformers' layers. Returns the handles to remove."""
    location, kind = settings["adapter_location"], settings["adapter_type"]
    handles = []
    for index, layer in enumerate(layers):
        prefix = adapter_prefix(settings, index)
        target = layer.fc2 if location == "mlp" else layer.self_attn
        read = {}

        def remember(module, arguments, keywords, read=read):
            read["x"] = arguments[0] if arguments else keywords["hidden_states"]

        def change(module, arguments, output, prefix=prefix, read=read):
            value = output[0] if isinstance(output, tuple) else output
            if kind == "normal":
                value = value + run_adapter(value, parameters, prefix, settings["adapter_layer_norm"])
            else:
                scale = parameters[f"{prefix}.adapter_scale"] if kind == "scaled_parallel" else 1.0
                value = value + scale * run_adapter(read["x"], parameters, prefix, settings["adapter_layer_norm"])
            return (value, *output[1:]) if isinstance(output, tuple) else value

        entry = layer.fc1 if location == "mlp" else layer.self_attn
        handles += [entry.register_forward_pre_hook(remember, with_kwargs=True), target.register_forward_hook(change)]
    return handles


# -------------------------------------------------------------------------------------------------- the model

def additive(visible):
    """[B,T,S] booleans -> the additive [B,1,T,S] mask of transformers' layers."""
    return torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, torch.finfo(torch.float64).min)[:, None]


def causal_visibility(keep):
    """keep: [B,S], 1 at real tokens and prompts."""
    length = keep.shape[1]
    return torch.ones(length, length, dtype=torch.bool).tril()[None] & keep.bool()[:, None]


def with_vis_token(visible, keep, mode):
    """Adds row 0 and column 0 for the injected token; everybody sees it."""
    batch, length = keep.shape
    row = {"open_published": torch.ones(batch, length, dtype=torch.bool), "open_clean": keep.bool(), "causal": torch.zeros(batch, length, dtype=torch.bool)}[mode]
    wider = torch.cat([row[:, None], visible], 1)
    return torch.cat([torch.ones(batch, length + 1, 1, dtype=torch.bool), wider], 2)


def feature_of_layer(layer, start, end, count):
    """Which feature enters before this layer, or None."""
    if not start <= layer < end:
        return None
    step = (end - start) // count if count > 1 and end - start > count else 1
    return min((layer - start) // step, count - 1)


def prompt_vectors(parameters, settings):
    name = "prompt_module.prefix_embedding"
    table = parameters[f"{name}.0.weight"]
    return affine(torch.tanh(affine(table, parameters, f"{name}.1")), parameters, f"{name}.3") if settings["prompt_mlp"] else table


def embed_text(decoder, parameters, settings, inputs, values):
    """Prompt and token embeddings through project_in; positions for the text alone. Returns hidden states and the keep mask over prompt and text."""
    tokens, keep = decoder.embed_tokens(inputs["input_ids"]), inputs["attention_mask"]
    batch, prompts = tokens.shape[0], settings["prompt_len"]
    if prompts:
        vectors = prompt_vectors(parameters, settings)
        values["prompt.out"] = vectors
        tokens = torch.cat([vectors.expand(batch, -1, -1), tokens], 1)
    hidden = decoder.project_in(tokens) if decoder.project_in is not None else tokens
    positions = nn.functional.pad(decoder.embed_positions(keep, 0), (0, 0, prompts, 0))
    return hidden + positions, nn.functional.pad(keep, (prompts, 0), value=1)


def connect(class_tokens, parameters, settings, values):
    connected = []
    for j, feature in enumerate(class_tokens[-settings["features"]:]):
        values[f"features.{j}"] = feature
        connected.append(affine(feature, parameters, f"connector.{0 if settings['shared_connector'] else j}"))
        values[f"connected.{j}"] = connected[-1]
    return connected


def run_epalm(vision, text, parameters, settings, inputs, mode):
    """All values by name; those that depend on the mask carry the mode as prefix."""
    values, decoder = {}, text.model.decoder
    with torch.no_grad():
        class_tokens = run_vit(vision, inputs["images"].double())[2]
    connected = connect(class_tokens, parameters, settings, values)
    hidden, keep = embed_text(decoder, parameters, settings, inputs, values)
    values["text.embed.out"] = hidden
    visible, inserted = causal_visibility(keep), False
    handles = attach_adapters(decoder.layers, settings, parameters) if "adapter_type" in settings else []
    for index, layer in enumerate(decoder.layers):
        which = feature_of_layer(index, settings["start"], settings["end"], settings["features"])
        if which is not None:
            hidden = torch.cat([connected[which][:, None], hidden[:, 1:] if inserted else hidden], 1)
            visible = visible if inserted else with_vis_token(visible, keep, mode)
            inserted = True
        hidden = layer(hidden, attention_mask=additive(visible))[0]
        values[f"{mode}/text.layers.{index}.out"] = hidden
    for handle in handles:
        handle.remove()
    if decoder.final_layer_norm is not None:
        hidden = decoder.final_layer_norm(hidden)
    if decoder.project_out is not None:
        hidden = decoder.project_out(hidden)
    values[f"{mode}/logits"] = text.lm_head(hidden)
    return values


def loss_of(logits, labels, norm):
    sums, count = sample_sums(logits, labels)
    return LOSS_SCALE * sums.mean() if norm == "sample_sum" else sums.sum() / count


# ---------------------------------------------------------------------------------------------------- writing

def make_inputs(name, batch_rows):
    source = Source(f"epalm.{name}.inputs")
    images = source.normal(len(batch_rows), 3, VISION["img_size"], VISION["img_size"])
    ids, mask, labels = padded_batch([[BOS] + [t if t else int(source.integers(3, ANSWER, 1)) for t in row] + [BOS] for row in batch_rows])
    answer = labels.clone()
    for sample in range(len(batch_rows)):
        last = (ids[sample] == ANSWER).nonzero()[-1]
        answer[sample, :last + 1] = -100
    return {"images": images, "input_ids": ids, "attention_mask": mask, "labels": labels, "labels_answer": answer}


# 0 is any ordinary token. The second sample holds the answer mark twice: the last one counts. The third answers with nothing but the end.
ROWS = [[0, 0, 0, 0, ANSWER, 0, 0, 0], [0, ANSWER, 0, 0, ANSWER, 0], [0, 0, ANSWER]]


def gradients(loss, parameters, prefix):
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {f"{prefix}grad:{k}": torch.zeros_like(p) if g is None else g for (k, p), g in zip(parameters.items(), found)}


def keeps_layer(variant_name, key):
    """Layer outputs cost most bytes: all of them for two variants, the published mode's for the others, the first with adapters."""
    if variant_name in ("main", "post"):
        return True
    mode, _, path = key.partition("/")
    return mode == "open_published" and ("adapter_type" not in VARIANTS[variant_name] or path == "text.layers.0.out")


def variant_case(name, settings, vision, text):
    stored = trainable_values(name, trainable_shapes(settings), settings.get("adapter_layer_norm", False))
    parameters = {k: v.double().requires_grad_() for k, v in stored.items()}
    inputs, tensors = make_inputs(name, ROWS), {}
    with_adapters = "adapter_type" in settings
    for mode in MODES[:1] if with_adapters else MODES:
        tensors |= run_epalm(vision, text, parameters, settings, inputs, mode)
        for norm, scope in [("sample_sum", "all")] if with_adapters else [(n, s) for n in ("sample_sum", "token_mean") for s in ("all", "answer")]:
            loss = loss_of(tensors[f"{mode}/logits"], inputs["labels" if scope == "all" else "labels_answer"], norm)
            tensors[f"{mode}/{norm}.{scope}/loss"] = loss
            tensors |= gradients(loss, parameters, f"{mode}/{norm}.{scope}/")
    tensors = {k: v for k, v in tensors.items() if "grad:" in k or ".layers." not in k or keeps_layer(name, k)}
    save(f"epalm_{name}_adapter", stored, settings)
    save(f"epalm_{name}", inputs | tensors, settings)


def make_windows(vision, text):
    inputs = make_inputs("windows", ROWS)
    metadata, tensors = {"cases": list(WINDOWS)}, dict(inputs)
    for name, (start, end, features) in WINDOWS.items():
        settings = variant(shared=False, start=start, end=end, features=features)
        stored = trainable_values(f"windows.{name}", trainable_shapes(settings))
        parameters = {k: v.double().requires_grad_() for k, v in stored.items()}
        logits = run_epalm(vision, text, parameters, settings, inputs, "open_published")["open_published/logits"]
        loss = loss_of(logits, inputs["labels"], "sample_sum")
        tensors |= {f"{name}.logits": logits, f"{name}.loss": loss} | gradients(loss, parameters, f"{name}.") | {f"{name}.{k}": v for k, v in stored.items()}
        metadata |= {f"{name}.{k}": settings[k] for k in ("start", "end", "features")}
    save("epalm_windows", tensors, metadata | {k: variant()[k] for k in ("vision", "text", "pad_id", "answer_id", "loss_scale")})


def check_padding(vision, text):
    """CLEAN and causal losses do not change when the batch is padded further; the published one does."""
    settings = variant(shared=False, prompt_len=3, prompt_mlp=True)
    parameters = {k: v.double() for k, v in trainable_values("main", trainable_shapes(settings)).items()}
    inputs = make_inputs("main", ROWS)
    longer = {k: nn.functional.pad(v, (0, 4), value=fill) for k, v, fill in
              [("input_ids", inputs["input_ids"], PAD), ("attention_mask", inputs["attention_mask"], 0), ("labels", inputs["labels"], -100)]}
    for mode in MODES:
        short_loss, long_loss = (loss_of(run_epalm(vision, text, parameters, settings, batch, mode)[f"{mode}/logits"], batch["labels"], "sample_sum")
                                 for batch in (inputs, inputs | longer))
        assert (abs(short_loss - long_loss) < 1e-12) == (mode != "open_published"), mode


def make_epalm():
    vision = build_vit("epalm_vit", VISION)
    texts = {name: build_opt(name, config) for name, config in TEXT.items()}
    for model in (vision, *texts.values()):
        model.requires_grad_(False)
    save("epalm_vit_weights", weights_of(vision), VISION)
    for name, config in TEXT.items():
        save(f"{name}_weights", opt_weights(texts[name]), config)
    for name, settings in VARIANTS.items():
        variant_case(name, settings, vision, texts[settings["text"]])
    make_windows(vision, texts["epalm_opt_pre"])
    check_padding(vision, texts["epalm_opt_pre"])
