"""Goldens of single operations: PyTorch in fp64 on fp32 inputs."""
import torch
import torch.nn.functional as F

from store import Keep64, Source, flatten, save


def backward(output, inputs, cotangent):
    return torch.autograd.grad(output, inputs, cotangent.double())


def leaf(tensor):
    return tensor.double().requires_grad_()


# ---------------------------------------------------------------------------------------------------- attention

def visibility(kind, batch, rows, keys, lengths):
    """[B,T,S] booleans for the mask kinds that are rules."""
    t = torch.arange(rows).view(1, rows, 1)
    s = torch.arange(keys).view(1, 1, keys)
    seen = torch.ones(batch, rows, keys, dtype=torch.bool)
    if kind.startswith("causal"):
        seen = seen & (s <= t)
    first = t == 0
    if lengths is not None:
        inside = s < lengths.view(batch, 1, 1)
        seen = seen & inside
        if kind.endswith("published"):
            seen = seen | first
        elif kind.endswith("clean"):
            seen = seen | (first & inside)
    elif kind == "causal_open_first":
        seen = seen | first
    return seen


def attend(q, k, v, bias, scale):
    """Masked attention whose empty rows give 0 and pass no gradient. bias: [B,T,S] of 0, finite values and -inf."""
    scores = torch.einsum("bthd,bshd->bhts", q, k) * scale + bias[:, None]
    empty = torch.isinf(bias).all(-1)[:, None, :, None]
    weights = torch.softmax(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def check_against_torch(q, k, v, bias, scale, out):
    """PyTorch's own attention must agree wherever a row sees something."""
    theirs = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias[:, None], scale=scale)
    sees = ~torch.isinf(bias).all(-1)
    difference = (theirs.transpose(1, 2) - out)[sees].abs().max()
    assert difference < 1e-12, difference


ATTENTION = [  # kind, B, T, S, H, Dh, lengths
    ("none", 2, 7, 7, 1, 64, None),
    ("none", 2, 5, 11, 3, 5, None),
    ("none", 1, 1, 1, 1, 1, None),
    ("causal", 1, 9, 9, 1, 80, None),
    ("causal", 2, 33, 33, 3, 5, None),
    ("causal_open_first", 2, 13, 13, 3, 5, None),
    ("causal_open_first", 1, 8, 8, 1, 64, None),
    ("lengths", 3, 6, 17, 2, 7, [17, 9, 0]),
    ("lengths", 2, 17, 17, 3, 5, [1, 16]),
    ("causal_lengths", 3, 11, 11, 3, 5, [11, 4, 0]),
    ("causal_open_first_lengths_published", 3, 12, 12, 3, 5, [12, 7, 1]),
    ("causal_open_first_lengths_clean", 3, 12, 12, 3, 5, [12, 7, 1]),
    ("explicit", 2, 9, 14, 3, 5, None),
]


def attention_case(index, kind, batch, rows, keys, heads, size, lengths):
    source = Source(f"attention.{index}")
    q, k, v = (source.normal(batch, n, heads, size) for n in (rows, keys, keys))
    dout = source.normal(batch, rows, heads, size)
    tensors = {"q": q, "k": k, "v": v, "dout": dout}
    if lengths is not None:
        lengths = tensors["lengths"] = torch.tensor(lengths)
    if kind == "explicit":
        seen = source.normal(batch, rows, keys) > -0.3
        seen[0, 3] = False
        seen[-1, :, 2] = False
    else:
        seen = visibility(kind, batch, rows, keys, lengths)
    bias = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    if kind == "explicit":
        tensors["mask"] = seen.to(torch.uint8)
    scale = size ** -0.5
    inputs = [leaf(q), leaf(k), leaf(v)]
    out = attend(*inputs, bias.double(), scale)
    check_against_torch(*inputs, bias.double(), scale, out)
    tensors["out"] = out
    tensors["dq"], tensors["dk"], tensors["dv"] = backward(out, inputs, dout)
    return tensors, {"kind": kind, "B": batch, "T": rows, "S": keys, "H": heads, "Dh": size, "scale": scale}


def make_attention():
    cases = {}
    for index, settings in enumerate(ATTENTION):
        kind, batch, rows, keys, heads, size, _ = settings
        cases[f"{kind}_t{rows}_s{keys}_d{size}"] = attention_case(index, *settings)
    save("attention", *flatten(cases))


# ------------------------------------------------------------------------------------------------ cross-entropy

def cross_entropy_case(name, shape, smoothing, scale, labels_rule):
    batch, rows, classes = shape
    source = Source(f"cross_entropy.{name}")
    stored = source.normal(*shape, scale=scale)
    labels = labels_rule(source.integers(0, classes, batch, rows))
    logits = leaf(stored)
    flat = F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none", label_smoothing=smoothing, ignore_index=-100)
    token_loss = flat.view(batch, rows)
    sums = token_loss.sum(1)
    tensors = {"logits": stored, "labels": labels, "token_loss": token_loss, "sample_sum": sums, "loss_sample_sum": sums.mean(),
               "dlogits_sample_sum": torch.autograd.grad(sums.mean(), logits, retain_graph=True)[0]}
    counted = int((labels != -100).sum())
    if counted:
        mean = F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), label_smoothing=smoothing)
        assert abs(mean - token_loss.sum() / counted) < 1e-12
        tensors["loss_token_mean"] = mean
        tensors["dlogits_token_mean"] = torch.autograd.grad(mean, logits)[0]
    return tensors, {"smoothing": smoothing, "ignore_index": -100}


def some_ignored(labels):
    labels = labels.clone()
    labels[:, 0] = -100
    labels[-1, labels.shape[1] // 2:] = -100
    return labels


def one_sample_ignored(labels):
    labels = some_ignored(labels)
    labels[0] = -100
    return labels


def make_cross_entropy():
    cases = {
        "plain": cross_entropy_case("plain", (3, 5, 61), 0.0, 2.0, some_ignored),
        "smooth": cross_entropy_case("smooth", (3, 5, 61), 0.1, 2.0, some_ignored),
        "wide": cross_entropy_case("wide", (2, 3, 307), 0.0, 1.0, some_ignored),
        "wide_smooth": cross_entropy_case("wide_smooth", (1, 3, 1003), 0.1, 1.0, some_ignored),
        "two_classes": cross_entropy_case("two_classes", (2, 4, 2), 0.1, 1.0, lambda labels: labels),
        "large_logits": cross_entropy_case("large_logits", (2, 4, 17), 0.0, 60.0, some_ignored),
        "sample_ignored": cross_entropy_case("sample_ignored", (3, 5, 7), 0.1, 1.0, one_sample_ignored),
        "all_ignored": cross_entropy_case("all_ignored", (2, 3, 7), 0.1, 1.0, lambda labels: torch.full_like(labels, -100)),
    }
    save("cross_entropy", *flatten(cases))


# --------------------------------------------------------------------------------- activations and layer norm

ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x, approximate="none"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "squared_relu": lambda x: F.relu(x).square(),
    "tanh": torch.tanh,
}


def make_activations():
    special = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-40, 1e-6, -1e-6, 0.5, -0.5, 3.0, -3.0, 5.5, -5.5, 9.0, -9.0, 14.0, -14.0, 40.0, -40.0, 100.0, -100.0, 1e4, -1e4])
    cases = {}
    for name, function in ACTIVATIONS.items():
        source = Source(f"activations.{name}")
        stored = torch.cat([special, source.normal(180, scale=2.5)])
        dy = source.normal(stored.numel())
        x = leaf(stored)
        y = function(x)
        cases[name] = ({"x": stored, "y": y, "dy": dy, "dx": backward(y, [x], dy)[0]}, {})
    save("activations", *flatten(cases))


def make_layer_norm():
    cases = {}
    for rows, width, eps, kind in [(5, 20, 1e-5, "plain"), (3, 77, 1e-6, "plain"), (4, 33, 1e-5, "far_mean"), (4, 15, 1e-6, "flat_row"), (2, 1, 1e-5, "plain"), (7, 96, 1e-6, "plain")]:
        name = f"{kind}_c{width}"
        source = Source(f"layer_norm.{name}")
        stored = source.normal(rows, width)
        if kind == "far_mean":
            stored = stored * 0.5 + 30.0
        if kind == "flat_row":
            stored[1] = 0.75
        weight, bias, dy = 1 + source.normal(width, scale=0.3), source.normal(width, scale=0.3), source.normal(rows, width)
        x, w, b = leaf(stored), leaf(weight), leaf(bias)
        y = F.layer_norm(x, (width,), w, b, eps)
        dx, dw, db = backward(y, [x, w, b], dy)
        cases[name] = ({"x": stored, "w": weight, "b": bias, "y": y, "dy": dy, "dx": dx, "dw": dw, "db": db}, {"eps": eps})
    save("layer_norm", *flatten(cases))


# -------------------------------------------------------------------------------------------------- optimizer

STEPS = 20
ADAMW = {  # beta1, beta2, eps, weight_decay, learning rate of step i
    "published": (0.9, 0.999, 1e-8, 0.02, lambda i: 1e-5 + (2e-5 - 1e-5) * min(i, 4) / 4),
    "no_decay": (0.9, 0.999, 1e-8, 0.0, lambda i: 1e-3),
    "strong": (0.8, 0.95, 1e-6, 0.5, lambda i: 0.1 / (1 + i)),
    "large_eps": (0.9, 0.98, 1e-4, 0.1, lambda i: 8e-4),
    "zero_lr": (0.9, 0.999, 1e-8, 0.1, lambda i: 0.0 if i % 2 else 1e-2),
}


def adamw_case(name, beta1, beta2, eps, decay, rate):
    source, count = Source(f"adamw.{name}"), 37
    start = source.normal(count)
    grads = source.normal(STEPS, count, scale=0.1) * torch.logspace(-6, 2, count)
    grads[:, 5] = 0.0
    grads[3:, 6] = 0.0
    param = torch.nn.Parameter(start.double())
    optimizer = torch.optim.AdamW([param], lr=0.0, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    rates = [rate(i) for i in range(STEPS)]
    tensors = {"lr": Keep64(rates), "param0": start, "grads": grads}
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rates[step]
        param.grad = grads[step].double()
        optimizer.step()
        if step + 1 in (1, 2, STEPS):
            state = optimizer.state[param]
            at = f"after{step + 1}"
            tensors.update({f"{at}.param": param.detach().clone(), f"{at}.m": state["exp_avg"].clone(), f"{at}.v": state["exp_avg_sq"].clone()})
    return tensors, {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay}


def make_adamw():
    save("adamw", *flatten({name: adamw_case(name, *settings) for name, settings in ADAMW.items()}))


def make_clip():
    cases = {}
    for name, max_norm, scale in [("clipped", 0.8, 1.0), ("untouched", 50.0, 1.0), ("tiny", 1.0, 1e-6), ("huge", 1.0, 1e6), ("zero", 1.0, 0.0)]:
        source = Source(f"clip.{name}")
        stored = [source.normal(*shape, scale=scale) for shape in [(7,), (3, 5), (1,), (4, 2, 3)]]
        params = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in stored]
        for param, grad in zip(params, stored):
            param.grad = grad.double()
        norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
        tensors = {"norm": norm, "scale": torch.clamp(max_norm / (norm + 1e-6), max=1.0)}
        tensors.update({f"grad.{i}": g for i, g in enumerate(stored)})
        tensors.update({f"clipped.{i}": p.grad for i, p in enumerate(params)})
        cases[name] = (tensors, {"max_norm": max_norm, "tensors": len(stored)})
    save("clip", *flatten(cases))
