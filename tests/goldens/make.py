"""Writes the golden files beside this script. See README.md for what is in them.

    python tests/goldens/make.py [family ...] [--tokenizers DIR]
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # noqa: E402

import store  # noqa: E402


def families(tokenizers, vqa_code=None, coco_captions=None):
    """Name -> function; imports inside, so that one family needs its own packages only."""
    def op(name):
        return lambda: getattr(__import__("ops"), f"make_{name}")()

    def own(module, function):
        return lambda: getattr(__import__(module), function)()

    table = {name: op(name) for name in ("attention", "cross_entropy", "activations", "layer_norm", "adamw", "clip")}
    table.update({
        "philox": own("philox", "make_philox"),
        "vit": own("vit", "make_vit"),
        "classifier": own("classifier", "make_classifier"),
        "opt": own("opt", "make_opt"),
        "decoding": own("decoding", "make_decoding"),
        "epalm": own("epalm", "make_epalm"),
        "adapted": own("adapted", "make_adapted"),
        "projector": own("projector", "make_projector"),
        "bpe": lambda: __import__("bpe").make_bpe(tokenizers),
        "metrics": lambda: __import__("metrics").make_metrics(vqa_code, coco_captions),
        "resize": own("pixels", "make_resize"),
        "transforms": own("pixels", "make_transforms"),
        "images": own("images", "make_images"),
        "weight_files": own("weight_files", "make_weight_files"),
    })
    return table


def total_bytes():
    return sum(f.stat().st_size for f in store.HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def main():
    names = list(families(None))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="*", help="one or more of: " + ", ".join(names) + " (default: all)")
    parser.add_argument("--tokenizers", type=Path, help="folder with opt/ and gpt2/, each with vocab.json and merges.txt (family bpe)")
    parser.add_argument("--vqa-code", type=Path, help="clone of github.com/GT-Vision-Lab/VQA (family metrics)")
    parser.add_argument("--coco-captions", type=Path, help="captions_val2017.json of COCO (family metrics)")
    arguments = parser.parse_args()
    unknown = set(arguments.family) - set(names)
    if unknown:
        parser.error(f"no family called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = arguments.family or names
    if "bpe" in chosen and arguments.tokenizers is None:
        parser.error("family bpe needs --tokenizers DIR (or name the other families)")
    if "metrics" in chosen and (arguments.vqa_code is None or arguments.coco_captions is None):
        parser.error("family metrics needs --vqa-code DIR and --coco-captions FILE (or name the other families)")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    table = families(arguments.tokenizers, arguments.vqa_code, arguments.coco_captions)
    for name in chosen:
        table[name]()
        print(f"{name}: done")
    print(f"all goldens: {total_bytes() / 1024:.0f} KiB of {store.LIMIT_BYTES / 1024:.0f}")
    if total_bytes() > store.LIMIT_BYTES:
        sys.exit("the golden files are over their limit")


if __name__ == "__main__":
    main()
