"""The workloads as modules: what is frozen, what is trained, and how files become parameters."""
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from layers import Linear, Opt, Vit, token_loss
from workloads import LOSS_SCALE, OPT_SIZES, POSITIONS, VIT_SIZES, VOCABULARY

ADAPTOR = "model_text.model.decoder.layers.{}.fc2.1.adapter.{}"


def linear_shapes(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def trainable_shapes(workload):
    """Names (ours, which are the published ones) and shapes of everything that is trained."""
    layers, width, _, _ = OPT_SIZES[workload.size]
    shapes = {}
    for j in range(workload.features):
        shapes |= linear_shapes(f"connector.{j}", width, VIT_SIZES[workload.vision][1])
    if workload.prompts:
        prefix = "prompt_module.prefix_embedding"
        shapes[f"{prefix}.0.weight"] = (workload.prompts, width)
        shapes |= linear_shapes(f"{prefix}.1", width, width) | linear_shapes(f"{prefix}.3", width, width)
    if workload.name == "e3":
        shapes |= linear_shapes("projector.0", width, VIT_SIZES[workload.vision][1])
    for layer in range(layers if workload.factor else 0):
        small = width // workload.factor
        shapes |= linear_shapes(ADAPTOR.format(layer, 0), small, width) | linear_shapes(ADAPTOR.format(layer, 2), width, small)
    return shapes


class PromptMlp(nn.Module):
    """Vectors in front of the text: a table through two linear layers."""

    def __init__(self, count, width):
        super().__init__()
        self.prefix_embedding = nn.Sequential(nn.Embedding(count, width), Linear(width, width), nn.Tanh(), Linear(width, width))

    def forward(self, dtype):
        table = self.prefix_embedding[0].weight.to(dtype)
        return self.prefix_embedding[3](self.prefix_embedding[2](self.prefix_embedding[1](table)))


class Connectors(nn.Module):
    """A linear layer for each class token: list of [B,D] -> list of [B,1,width]. No ModuleList, which fully_shard takes for one without a forward."""

    def __init__(self, layers):
        super().__init__()
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def forward(self, features):
        return [connect(feature)[:, None] for connect, feature in zip(self.children(), features)]


def feature_of_layer(layer, window, count):
    """Which class token is written before this decoder layer, or None."""
    start, end = window
    if not start <= layer < end:
        return None
    step = (end - start) // count if count > 1 and end - start > count else 1
    return min((layer - start) // step, count - 1)


class Frozen(nn.Module):
    """What the three have: a frozen decoder, and a frozen encoder or none."""

    prefix = 0  # tokens in front of the text, and of the class token

    def __init__(self, workload, options):
        super().__init__()
        self.workload, self.options = workload, options
        if workload.vision:
            self.vision = Vit(*VIT_SIZES[workload.vision])
        self.text = Opt(*OPT_SIZES[workload.size], VOCABULARY, POSITIONS, workload.factor)
        self.mask = None

    def visible(self):
        """[S,S], what each row sees, of the longest sequence; None for a causal mask."""
        return None

    def prepare(self, device, dtype):
        """What is no parameter: the mask, in the form that attention takes."""
        form, visible = attention_form(self.options, self.length(), device, dtype), self.visible()
        for layer in self.text.layers:
            layer.attention = form
        if form == "products":
            shape = (self.length(), self.length())
            self.mask = additive(torch.ones(shape, dtype=torch.bool).tril_() if visible is None else visible, dtype).to(device)
        elif visible is not None:
            # On a GPU added numbers in rows of whole 16-byte pieces: SDPA would make them of booleans, and align them, in every layer of every step.
            self.mask = aligned(additive(visible, torch.float32 if form == "sdpa32" else dtype).to(device)) if device.type == "cuda" else visible.to(device)

    def length(self):
        return self.prefix + self.workload.tokens

    def loss(self, hidden, ids):
        """Sum of token losses; of the rows that predict a token alone: texts without their last tokens."""
        rows = self.text.final_layer_norm(hidden[:, -ids.shape[1] : -1]).flatten(0, 1)
        return token_loss(rows, self.text.embed_tokens.weight, ids[:, 1:].flatten(), self.options.loss_rows)

    def forward(self, batch):
        return self.decode(self.encode(batch["images"]) if self.workload.vision else None, batch["ids"])


class Epalm(Frozen):
    """E1. Class tokens of late vision blocks become one extra token in a window of late decoder layers; prompts in front of the text."""

    def __init__(self, workload, options):
        super().__init__(workload, options)
        width, dim = OPT_SIZES[workload.size][1], VIT_SIZES[workload.vision][1]
        self.connector = Connectors(Linear(dim, width) for _ in range(workload.features))
        self.prompt_module = PromptMlp(workload.prompts, width)
        self.prefix = 1 + workload.prompts

    def visible(self):
        """Causal but for the class token's row, which sees all tokens, as published."""
        visible = torch.ones(self.length(), self.length(), dtype=torch.bool).tril_()
        visible[0] = True
        return visible

    def encode(self, images):
        with torch.no_grad():
            return self.vision.class_tokens(images, self.workload.features)

    def mask_before(self):
        """Of the layers that have no class token yet: the causal rest."""
        return self.mask[1:, 1:] if self.text.layers[0].attention == "products" else None

    def decode(self, class_tokens, ids):
        connected = self.connector(class_tokens)
        tokens = self.text.embed(ids)
        prompts = self.prompt_module(tokens.dtype)
        hidden, inserted = torch.cat([prompts.expand(len(ids), -1, -1), tokens], 1), False
        for index, layer in enumerate(self.text.layers):
            which = feature_of_layer(index, self.workload.window, self.workload.features)
            if which is not None:
                hidden = torch.cat([connected[which], hidden[:, 1:] if inserted else hidden], 1)
                inserted = True
            hidden = layer(hidden, self.mask if inserted else self.mask_before())
        return self.loss(hidden, ids)


class Projector(Frozen):
    """E3. All patch tokens, projected, in front of the text."""

    def __init__(self, workload, options):
        super().__init__(workload, options)
        self.projector = nn.Sequential(Linear(VIT_SIZES[workload.vision][1], OPT_SIZES[workload.size][1]))
        self.prefix = self.vision.pos_embed.shape[1] - 1

    def encode(self, images):
        with torch.no_grad():
            return self.vision.patches(images)

    def decode(self, patches, ids):
        hidden = torch.cat([self.projector(patches), self.text.embed_tokens(ids)], 1)
        hidden = hidden + self.text.positions(hidden.shape[1])
        for layer in self.text.layers:
            hidden = layer(hidden, self.mask)
        return self.loss(hidden, ids)


class AdaptedText(Frozen):
    """E4. A bottleneck in every decoder layer, texts alone."""

    def decode(self, nothing, ids):
        hidden = self.text.embed(ids)
        for layer in self.text.layers:
            hidden = layer(hidden, self.mask)
        return self.loss(hidden, ids)


MODELS = {"e1": Epalm, "e3": Projector, "e4": AdaptedText}
SHORT = 256  # tokens up to which attention by products is faster; beyond, its scores are large


def attention_form(options, length, device, dtype):
    """How the decoder attends. Backward of SDPA in bf16 on CPUs takes several times as long as products, for short texts."""
    if options.attention != "auto":
        return options.attention
    if device.type != "cpu" or dtype != torch.bfloat16:
        return "sdpa"
    return "products" if length <= SHORT else "sdpa"


def additive(visible, dtype):
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def aligned(mask):
    """The same numbers, the beginnings of rows 16 elements apart or a multiple of it."""
    rows, columns = mask.shape
    return torch.nn.functional.pad(mask, (0, -columns % 16))[:rows, :columns]


def mean_loss(total, samples):
    """As on our side: the tokens of a sample added up, the mean over samples, times the published factor."""
    return total * (LOSS_SCALE / samples)


# -------------------------------------------------------------------------------------------------------- files

def read_tensors(path, device="cpu"):
    """Name and tensor of a safetensors file or of all in a folder."""
    path = Path(path)
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with safe_open(file, "pt", device=str(device)) as opened:
            for name in opened.keys():
                yield name, opened.get_tensor(name)


def fuse_qkv(tensors):
    """OPT's three projections of a layer as the rows of one matrix; the other names as here."""
    found, parts = {}, {}
    for name, tensor in tensors:
        name = name.removeprefix("model.").removeprefix("decoder.")
        if name == "lm_head.weight":
            continue
        for which in "qkv":
            if f".self_attn.{which}_proj." in name:
                parts.setdefault(name.replace(f"self_attn.{which}_proj", "qkv"), {})[which] = tensor
                break
        else:
            found[name.replace(".self_attn.out_proj.", ".out_proj.")] = tensor
    return found | {name: torch.cat([p["q"], p["k"], p["v"]]) for name, p in parts.items()}


def adapter_name(name):
    """Our name of a trainable parameter -> its name in the module."""
    name = name.replace("model_text.model.decoder.layers.", "text.layers.")
    return name.replace(".fc2.1.adapter.", ".adaptor.adapter.")


def state_of_files(folder, workload, device):
    """The state dict of the workload's module, read to where it is used."""
    folder = Path(folder)
    state = {f"text.{k}": v for k, v in fuse_qkv(read_tensors(folder / "weights/text", device)).items()}
    if workload.vision:
        state |= {f"vision.{k}": v for k, v in read_tensors(folder / "weights/vision", device) if not k.startswith("head.")}
    return state | {adapter_name(k): v for k, v in read_tensors(folder / "adapter.safetensors", device)}


def build(workload, folder, dtype, device, options):
    """The module with its weights: frozen parameters in `dtype`, trained ones in fp32."""
    with torch.device("meta"):
        model = MODELS[workload.name](workload, options)
    trained = {adapter_name(k) for k in trainable_shapes(workload)}
    state = state_of_files(folder, workload, device)
    for name, parameter in model.named_parameters():
        if parameter.shape != state[name].shape:
            raise ValueError(f"{name}: expected {tuple(parameter.shape)}; got {tuple(state[name].shape)}")
    for name in state:
        # On CPUs a copy: what was read is a mapping of the file.
        state[name] = state[name].to(device=device, dtype=torch.float32 if name in trained else dtype, copy=device.type == "cpu")
    model.load_state_dict(state, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.prepare(device, dtype)
    return model.eval()
