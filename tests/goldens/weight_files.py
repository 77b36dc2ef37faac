"""Weight files as PyTorch and numpy themselves write them, and what is in them."""
import collections
import os
import warnings

import numpy as np
import torch
from safetensors.torch import save_file

from store import HERE, Source

FOLDER = HERE / "weight_files"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i64": torch.int64,
          "i32": torch.int32, "u8": torch.uint8}


class Runs:
    """What a file of an attacker does when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def dtypes(source):
    tensors = collections.OrderedDict((name, source.normal(3, 5, scale=20).abs().to(dtype)) for name, dtype in DTYPES.items())
    tensors["scalar"] = source.normal(1)[0].clone()
    tensors["empty"] = torch.zeros(0, 4)
    return tensors


def views(source):
    base, square = source.normal(6, 4), source.normal(5, 7)
    wide = source.normal(2, 1400)  # rows of half of it are long enough to be read one by one
    return {"tied": base, "alias": base, "lower_rows": base[2:5], "columns": base[:, 1:3], "transposed": square.t(),
            "permuted": source.normal(2, 3, 4).permute(2, 0, 1), "long_rows": wide[:, 100:1200], "every_second": square[::2, ::3]}


def checkpoint(source):
    """Laid out like the checkpoint_best.pth of eP-ALM's trainer."""
    nn = torch.nn
    model = nn.Module()
    model.connector = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
    model.prompt_module = nn.Module()
    model.prompt_module.prefix_embedding = nn.Sequential(nn.Embedding(2, 3), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(source.normal(*p.shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    (model.connector[0](source.normal(2, 4)) + model.prompt_module.prefix_embedding(torch.tensor([0, 1]))).sum().backward()
    optimizer.step()
    weights = model.state_dict()
    for module in ("model_text", "transformer"):  # saved twice
        weights[f"{module}.model.decoder.layers.0.fc2.1.adapter.0.weight"] = model.connector[0].weight
    return {"model": weights,
            "optimizer": optimizer.state_dict(), "lr_scheduler": {"base_values": [2e-5], "t_initial": 8, "warmup": None},
            "config": {"use_vis_prefix": True, "injected_hidden_states": 6, "text_model": "facebook/opt-2.7b", "lr": 2e-5},
            "epoch": 7, "best_valid": np.float64(0.5325), "best_epoch": torch.Size([5])}


def jax_vit(source, dim=8, heads=2, depth=2):
    arrays = {"embedding/kernel": source.normal(4, 4, 3, dim), "embedding/bias": source.normal(dim), "cls": source.normal(1, 1, dim),
              "Transformer/posembed_input/pos_embedding": source.normal(1, 5, dim), "head/kernel": source.normal(dim, 3),
              "head/bias": source.normal(3), "pre_logits/kernel": source.normal(dim, dim), "pre_logits/bias": source.normal(dim)}
    norms = ["Transformer/encoder_norm"]
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        norms += [f"{block}/LayerNorm_0", f"{block}/LayerNorm_2"]
        for name in ("query", "key", "value"):
            arrays[f"{block}/MultiHeadDotProductAttention_1/{name}/kernel"] = source.normal(dim, heads, dim // heads)
            arrays[f"{block}/MultiHeadDotProductAttention_1/{name}/bias"] = source.normal(heads, dim // heads)
        arrays[f"{block}/MultiHeadDotProductAttention_1/out/kernel"] = source.normal(heads, dim // heads, dim)
        arrays[f"{block}/MultiHeadDotProductAttention_1/out/bias"] = source.normal(dim)
        for k, (n, m) in enumerate([(dim, 4 * dim), (4 * dim, dim)]):
            arrays[f"{block}/MlpBlock_3/Dense_{k}/kernel"] = source.normal(n, m)
            arrays[f"{block}/MlpBlock_3/Dense_{k}/bias"] = source.normal(m)
    for norm in norms:
        arrays[f"{norm}/scale"], arrays[f"{norm}/bias"] = source.normal(dim), source.normal(dim)
    return {name: a.numpy() for name, a in arrays.items()}


def timm_names(path, dim=8, heads=2, depth=2):
    """What timm makes of the same file."""
    from timm.models.vision_transformer import VisionTransformer
    model = VisionTransformer(img_size=8, patch_size=4, embed_dim=dim, depth=depth, num_heads=heads, num_classes=3)
    model.load_pretrained(str(path))
    return model.state_dict()


def opt_model(source):
    from transformers import OPTConfig, OPTForCausalLM
    model = OPTForCausalLM(OPTConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, ffn_dim=16, num_attention_heads=2,
                                     max_position_embeddings=10, word_embed_proj_dim=8))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(source.normal(*p.shape, scale=0.1))
    return model.half().state_dict()


def torch_files(source):
    """{file name: (what is saved, options)}"""
    plain = dtypes(source)
    files = {"dtypes.pth": (plain, {}), "views.pt": (views(source), {}), "checkpoint.pth": (checkpoint(source), {}),
             "opt.bin": (opt_model(source), {}),
             "parameters.bin": ({"w": torch.nn.Parameter(source.normal(2, 3)), "inner": [{"b": source.normal(2)}, source.normal(1)]}, {}),
             "float8.pt": ({"w": source.normal(4).to(torch.float8_e4m3fn), "x": source.normal(3).half()}, {})}
    for protocol in (3, 4, 5):
        files[f"protocol{protocol}.pth"] = (plain, {"pickle_protocol": protocol})
    half = len(plain) // 2
    for i, names in enumerate([list(plain)[:half], list(plain)[half:]]):
        files[f"sharded/pytorch_model-0000{i + 1}-of-00002.bin"] = ({n: plain[n] for n in names}, {})
    files |= {"refused/legacy.pth": (plain, {"_use_new_zipfile_serialization": False}),
              "refused/expanded.pth": ({"w": torch.ones(1).expand(1000, 1000)}, {}),
              "refused/sparse.pth": ({"w": torch.eye(3).to_sparse()}, {}),
              "refused/os_system.pth": ({"w": source.normal(2), "x": Runs(os.system, "touch executed")}, {}),
              "refused/eval.pth": (Runs(eval, "open('executed', 'w')"), {}),
              "refused/module.pth": (torch.nn.Linear(2, 2), {})}
    return files


def numpy_arrays(source):
    arrays = {name: source.normal(3, 4, 2).numpy().astype(name) for name in ("float16", "float32", "float64")}
    arrays |= {"layer/int64": source.integers(-9, 9, 5).numpy(), "fortran": np.asfortranarray(source.normal(5, 3).numpy()),
               "fortran3": np.asfortranarray(source.normal(2, 3, 4).numpy()), "scalar": source.normal(1).numpy().reshape(()),
               "empty": np.zeros((0, 2), np.float32), "bool": source.integers(0, 2, 4).bool().numpy(),
               "zeros": np.zeros((20, 100), np.float32)}
    return arrays


def make_weight_files():
    for folder in ("sharded", "refused"):
        (FOLDER / folder).mkdir(parents=True, exist_ok=True)
    source, expected = Source("weight_files"), {}
    for name, (value, options) in torch_files(source).items():
        torch.save(value, FOLDER / name, **options)
        if name in ("dtypes.pth", "views.pt", "opt.bin", "parameters.bin"):
            flat = {"w": value["w"], "inner.0.b": value["inner"][0]["b"], "inner.1": value["inner"][1]} if name == "parameters.bin" else value
        elif name == "checkpoint.pth":
            flat = value["model"]
        else:
            continue
        expected |= {f"{name}/{k}": v.detach().clone().contiguous() for k, v in flat.items()}
    index = {n: f"pytorch_model-0000{1 + (i >= len(DTYPES) // 2 + 1)}-of-00002.bin" for i, n in enumerate(dtypes(Source("weight_files")))}
    rows = ",\n".join(f'  "{n}": "{f}"' for n, f in index.items())
    (FOLDER / "sharded/pytorch_model.bin.index.json").write_text('{"metadata": {}, "weight_map": {\n' + rows + "\n}}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), FOLDER / "refused/script.pt")

    arrays = numpy_arrays(source)
    np.savez(FOLDER / "plain.npz", **arrays)
    np.savez_compressed(FOLDER / "compressed.npz", **arrays)
    np.savez(FOLDER / "refused/objects.npz", a=np.array([{"x": 1}], dtype=object))
    np.savez(FOLDER / "refused/big_endian.npz", a=np.ones(3, ">f4"))
    for version in (2, 3):
        with open(FOLDER / f"version{version}.npy", "wb") as out:
            np.lib.format.write_array(out, arrays["float32"], version=(version, 0))
    expected |= {f"numpy/{k}": torch.from_numpy(np.ascontiguousarray(a).reshape(a.shape)) for k, a in arrays.items()}
    np.savez(FOLDER / "jax_vit.npz", **jax_vit(source))
    expected |= {f"timm/{k}": v for k, v in timm_names(FOLDER / "jax_vit.npz").items()}
    save_file(expected, FOLDER / "expected.safetensors")
