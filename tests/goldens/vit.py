"""Vision transformer goldens: timm's VisionTransformer in fp64, fp32 weights and results."""
import torch
from timm.models.vision_transformer import VisionTransformer

from store import Source, save

EPS = 1e-6
SMALL = {"img_size": 32, "patch_size": 8, "in_chans": 3, "dim": 24, "depth": 3, "heads": 3, "mlp_dim": 96, "eps": EPS}
ODD = {"img_size": 21, "patch_size": 7, "in_chans": 3, "dim": 15, "depth": 2, "heads": 5, "mlp_dim": 45, "eps": EPS}


def fill(model, source):
    """Random fp32 values everywhere, large enough that attention is far from uniform and no bias is zero."""
    for name, parameter in sorted(model.named_parameters()):
        values = source.normal(*parameter.shape)
        is_norm = "norm" in name
        if is_norm and name.endswith("weight"):
            values = 1 + 0.2 * values
        elif name.endswith("bias"):
            values = 0.2 * values
        elif "embed" in name or "token" in name:
            fan_in = parameter[0].numel() if parameter.dim() == 4 else 4
            values = values / fan_in ** 0.5
        else:
            values = 1.2 * values / parameter.shape[-1] ** 0.5
        parameter.data = values.float().double()


def weights_of(model):
    """State dict as stored; the model holds fp32 values in fp64."""
    return {name: value.float() for name, value in model.state_dict().items()}


def build_vit(name, config):
    model = VisionTransformer(img_size=config["img_size"], patch_size=config["patch_size"], in_chans=config["in_chans"], num_classes=0,
                              embed_dim=config["dim"], depth=config["depth"], num_heads=config["heads"], mlp_ratio=config["mlp_dim"] / config["dim"])
    assert model.blocks[0].mlp.fc1.out_features == config["mlp_dim"] and model.norm.eps == config["eps"]
    fill(model, Source(name))
    return model.eval()


def run_vit(model, images):
    """(embedding, outputs of all blocks, final norm of each block's class token, final norm of the last block)"""
    x = embedded = model._pos_embed(model.patch_embed(images))
    outputs = []
    for block in model.blocks:
        x = block(x)
        outputs.append(x)
    features = [model.norm(o)[:, 0] for o in outputs]
    return embedded, outputs, features, model.norm(x)


def vit_case(name, config, batch):
    model = build_vit(name, config)
    source = Source(f"{name}.inputs")
    stored = source.normal(batch, config["in_chans"], config["img_size"], config["img_size"])
    images = stored.double()
    embedded, outputs, features, final = run_vit(model, images)
    assert torch.equal(final, model.forward_features(images)), "our walk through the blocks is not timm's"
    cotangents = {f"features.{i}": source.normal(*f.shape) for i, f in enumerate(features)}
    cotangents["vision.norm.out"] = source.normal(*final.shape, scale=0.1)
    values = {f"features.{i}": f for i, f in enumerate(features)} | {"vision.norm.out": final}
    loss = sum((values[k] * c.double()).sum() for k, c in cotangents.items())
    loss.backward()
    tensors = {"images": stored, "vision.embed.out": embedded, "loss": loss} | values
    tensors.update({f"vision.blocks.{i}.out": o for i, o in enumerate(outputs)})
    tensors.update({f"cot:{k}": c for k, c in cotangents.items()})
    tensors.update({f"grad:{k}": p.grad for k, p in model.named_parameters()})
    save(f"{name}_weights", weights_of(model), config)
    save(name, tensors, config)


def make_vit():
    vit_case("vit_small", SMALL, batch=2)
    vit_case("vit_odd", ODD, batch=3)
