"""Parts of the models in plain PyTorch. Parameters have the names of the published files where their shapes allow it."""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Module):
    """x W^T + b. The parameters may be kept wider than the computation: trained ones are fp32 masters of a bf16 product."""

    packed = None  # oneDNN's own order of a frozen weight, see `pack`

    def __init__(self, width_in, width_out):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(width_out, width_in)), nn.Parameter(torch.empty(width_out))

    def forward(self, x):
        if self.packed is not None:
            return PackedLinear.apply(x, self.weight, self.packed, self.bias)
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class PackedLinear(torch.autograd.Function):
    """A product with a frozen weight that oneDNN has reordered ahead of time, as compiled code with `freezing` has it; backward reads the plain one."""

    @staticmethod
    def forward(ctx, x, weight, packed, bias):
        ctx.weight = weight
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.weight, None, None, None


def pack(model, rows):
    """A second copy of all frozen weights of linear layers, in oneDNN's order for products of this many rows."""
    for module in model.modules():
        if isinstance(module, Linear) and not module.weight.requires_grad:
            module.packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), rows)


def split_heads(qkv, heads):
    """[B,S,3D] -> three of [B,heads,S,D/heads]"""
    batch, length, width = qkv.shape
    return qkv.view(batch, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)


def attend(qkv, heads, mask=None, causal=False):
    """[B,S,3D] -> [B,S,D]"""
    q, k, v = split_heads(qkv, heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).reshape(qkv.shape[0], qkv.shape[1], -1)


def attend_by_products(qkv, heads, mask):
    """The same by products of whole matrices, for short texts on CPUs: the backward pass of SDPA in bf16 is slow there. mask: [S,S], added."""
    batch, length, _ = qkv.shape
    q, k, v = (part.reshape(batch * heads, length, -1) for part in split_heads(qkv, heads))
    scores = torch.baddbmm(mask, q * (1 / math.sqrt(q.shape[-1])), k.transpose(1, 2))
    out = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(v.dtype), v)
    return out.view(batch, heads, length, -1).transpose(1, 2).reshape(batch, length, -1)


# ------------------------------------------------------------------------------------------------------- vision

class VitAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = Linear(dim, 3 * dim), Linear(dim, dim), heads

    def forward(self, x):
        return self.proj(attend(self.qkv(x), self.heads))


class VitMlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, 4 * dim), Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class VitBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = VitAttention(dim, heads), VitMlp(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A convolution whose kernel is its stride is a product with the patches; the product is faster than conv2d on CPUs in every layout."""

    def __init__(self, dim, patch=16):
        super().__init__()
        self.proj, self.patch = nn.Conv2d(3, dim, patch, patch), patch

    def forward(self, images):
        batch, channels, size, _ = images.shape
        side = size // self.patch
        patches = images.view(batch, channels, side, self.patch, side, self.patch).permute(0, 2, 4, 1, 3, 5).reshape(batch, side * side, -1)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Vit(nn.Module):
    """timm's vision transformer without its head."""

    def __init__(self, depth, dim, heads, tokens=197):
        super().__init__()
        self.cls_token, self.pos_embed = nn.Parameter(torch.empty(1, 1, dim)), nn.Parameter(torch.empty(1, tokens, dim))
        self.patch_embed, self.norm = PatchEmbed(dim), nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(VitBlock(dim, heads) for _ in range(depth))

    def embed(self, images):
        patches = self.patch_embed(images)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed

    def class_tokens(self, images, count):
        """The class token behind each of the last `count` blocks through the final norm: [count] of [B,D]"""
        x, found = self.embed(images), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index >= len(self.blocks) - count:
                found.append(self.norm(x[:, 0]))
        return found

    def patches(self, images):
        """Patch tokens of the last block through the final norm: [B,196,D]"""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1:])


# --------------------------------------------------------------------------------------------------------- text

class Adaptor(nn.Module):
    """y + W2 relu(W1 y), trained."""

    def __init__(self, width, factor):
        super().__init__()
        small = width // factor
        self.adapter = nn.Sequential(Linear(width, small), nn.ReLU(), Linear(small, width))

    def forward(self, y):
        return y + self.adapter(y)


class OptLayer(nn.Module):
    """A decoder layer with norms in front. Query, key and value are one product."""

    def __init__(self, width, heads, ffn, factor=0):
        super().__init__()
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out_proj, self.heads = Linear(width, 3 * width), Linear(width, width), heads
        self.fc1, self.fc2 = Linear(width, ffn), Linear(ffn, width)
        self.adaptor = Adaptor(width, factor) if factor else None
        self.attention = "sdpa"  # "sdpa32": the same of fp32 numbers; "products"

    def forward(self, x, mask):
        """mask: of booleans, None for a causal one; with attention by products added to the scores."""
        qkv = self.qkv(self.self_attn_layer_norm(x))
        if self.attention == "products":
            attended = attend_by_products(qkv, self.heads, mask)
        else:
            wide = qkv.float() if self.attention == "sdpa32" else qkv
            attended = attend(wide, self.heads, mask, mask is None).to(qkv.dtype)
        x = x + self.out_proj(attended)
        y = self.fc2(F.relu(self.fc1(self.final_layer_norm(x))))
        return x + (y if self.adaptor is None else self.adaptor(y))


class Opt(nn.Module):
    """OPT's decoder; its head is the token embedding."""

    def __init__(self, layers, width, heads, ffn, vocabulary, positions, factor=0):
        super().__init__()
        self.embed_tokens, self.embed_positions = nn.Embedding(vocabulary, width), nn.Embedding(positions + 2, width)
        self.layers = nn.ModuleList(OptLayer(width, heads, ffn, factor) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width)

    def embed(self, ids):
        """[B,T] -> [B,T,D]"""
        return self.embed_tokens(ids) + self.positions(ids.shape[1])

    def positions(self, length):
        """[length,D]; no padding anywhere, so positions count from 0 and rows from 2"""
        return self.embed_positions.weight[2 : 2 + length]


# --------------------------------------------------------------------------------------------------------- loss

def plain_loss(hidden, head, labels):
    """Sum of token losses. hidden: [N,D], head: [V,D], labels: [N]"""
    return F.cross_entropy(F.linear(hidden, head).float(), labels, reduction="sum")


class ChunkedLoss(torch.autograd.Function):
    """The same with its gradient made in the forward pass, some rows at a time: fp32 logits and their gradient never exist as a whole."""

    @staticmethod
    def forward(ctx, hidden, head, labels, rows):
        gradient, total = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32)
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            logits, target = F.linear(hidden[part], head), labels[part, None]
            values = logits.float()
            log_sum = torch.logsumexp(values, 1, keepdim=True)
            total += (log_sum - values.gather(1, target)).sum()
            values.sub_(log_sum).exp_()
            values.scatter_add_(1, target, values.new_full((1, 1), -1.0).expand_as(target))
            torch.mm(logits.copy_(values) if logits is not values else values, head, out=gradient[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, scale):
        return ctx.saved_tensors[0] * scale.to(ctx.saved_tensors[0].dtype), None, None, None


def token_loss(hidden, head, labels, rows):
    """rows: 0 for the plain form."""
    return ChunkedLoss.apply(hidden, head, labels, rows) if rows else plain_loss(hidden, head, labels)
