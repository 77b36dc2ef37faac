"""Byte-level BPE goldens: transformers' slow tokenizers, loaded from files as they are published (special tokens as in the models' configurations)."""
import base64
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from transformers import GPT2Tokenizer, RobertaTokenizer  # noqa: E402

from bpe_texts import TEXTS  # noqa: E402
from store import save_json  # noqa: E402

ANSWER = "</a>"


def special(text):
    return {"content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "__type": "AddedToken"}


OPT_CONFIG = {"errors": "replace", "unk_token": special("</s>"), "bos_token": special("</s>"), "eos_token": special("</s>"), "pad_token": special("<pad>"), "add_prefix_space": False,
              "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}


def load(kind, files, config):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(files / name, Path(folder) / name)
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return kind.from_pretrained(folder, local_files_only=True)


def load_all(root):
    answering = load(GPT2Tokenizer, root / "opt", OPT_CONFIG)
    answering.add_special_tokens({"additional_special_tokens": [ANSWER]})
    assert answering.convert_tokens_to_ids(ANSWER) == 50265
    return {"opt": load(GPT2Tokenizer, root / "opt", OPT_CONFIG), "opt_answer": answering, "gpt2": load(GPT2Tokenizer, root / "gpt2", {}), "roberta": load(RobertaTokenizer, root / "opt", {})}


def describe(name, tokenizer):
    around = tokenizer.build_inputs_with_special_tokens([-1])
    split = around.index(-1)
    specials = []
    for text in sorted(set(tokenizer.unique_no_split_tokens)):
        strips = {t: (text == ANSWER) for t in ("left", "right")}
        if text == "<mask>":
            strips["left"] = True
        specials.append({"text": text, "id": tokenizer.convert_tokens_to_ids(text), "strip_left": strips["left"], "strip_right": strips["right"]})
        check_stripping(tokenizer, specials[-1])
    return {"files": "gpt2" if name == "gpt2" else "opt", "vocab_size": tokenizer.vocab_size, "prefix_ids": around[:split], "suffix_ids": around[split + 1:], "specials": specials}


def check_stripping(tokenizer, entry):
    """The description of a special token must be what the tokenizer does."""
    inner = tokenizer.encode(f"a {entry['text']} b", add_special_tokens=False)
    left = tokenizer.encode("a" if entry["strip_left"] else "a ", add_special_tokens=False)
    right = tokenizer.encode("b" if entry["strip_right"] else " b", add_special_tokens=False)
    assert inner == left + [entry["id"]] + right, (entry, inner)


def encoded(data):
    return base64.b64encode(data).decode("ascii")


def decode_entry(name, kind, tokenizer, ids):
    pieces = [tokenizer.convert_ids_to_tokens(i) for i in ids]
    special_texts = set(tokenizer.unique_no_split_tokens)
    raw = b"".join(p.encode() if p in special_texts else bytes(tokenizer.byte_decoder[c] for c in p) for p in pieces)
    return {"name": name, "tokenizer": kind, "ids": ids, "bytes": encoded(raw), "text": encoded(tokenizer.decode(ids).encode()),
            "text_skip_special": encoded(tokenizer.decode(ids, skip_special_tokens=True).encode())}


def decode_entries(tokenizers):
    wanted = ["published", "caption", "contractions", "dashes", "emoji_family", "cjk", "controls", "mixed_white", "eos_inside", "eos_end", "pad_tight", "answer", "answer_spaces", "answer_adjacent", "answer_twice", "answer_empty_answer"]
    entries = [decode_entry(f"{name}_{kind}", kind, tokenizers[kind], tokenizers[kind].encode(TEXTS[name])) for name in wanted for kind in ("opt_answer", "roberta")]
    entries += [decode_entry(f"{name}_gpt2", "gpt2", tokenizers["gpt2"], tokenizers["gpt2"].encode(TEXTS[name])) for name in ("published", "endoftext_inside", "emoji_run")]
    opt = tokenizers["opt_answer"]
    byte_ids = {b: opt.encoder[c] for b, c in opt.byte_encoder.items()}
    invalid = {"lone_continuation": [0x80], "cut_short": [0xE6, 0x88], "cut_then_ascii": [0xE6, 0x88, 0x41], "overlong": [0xC0, 0xAF], "surrogate": [0xED, 0xA0, 0x80], "beyond": [0xF4, 0x90, 0x80, 0x80], "ff_fe": [0xFF, 0xFE],
               "cut_emoji": [0xF0, 0x9F, 0x98], "two_cut_emoji": [0xF0, 0x9F, 0xF0, 0x9F, 0x98, 0x80], "all_bytes": list(range(256))}
    entries += [decode_entry(f"invalid_{name}", "opt_answer", opt, [byte_ids[b] for b in data]) for name, data in invalid.items()]
    cleaned = {"space_before_marks": " a . b , c ! d ?", "space_before_contractions": "do n't it 's I 'm we 've they 're a ' b", "bos_then_answer": "</s>q?</a>dog</s><pad><pad>"}
    entries += [decode_entry(name, "opt_answer", opt, opt.encode(text, add_special_tokens=False)) for name, text in cleaned.items()]
    entries.append(decode_entry("nothing", "opt_answer", opt, []))
    return entries


def make_bpe(root):
    tokenizers = load_all(root)
    encode = []
    for name, text in TEXTS.items():
        ids = {kind: tokenizer.encode(text) for kind, tokenizer in tokenizers.items()}
        if ids["opt_answer"] == ids["opt"]:
            del ids["opt_answer"]
        encode.append({"name": name, "text": encoded(text.encode())} | ids)
    save_json("bpe", {"tokenizers": {name: describe(name, tokenizer) for name, tokenizer in tokenizers.items()}, "encode": encode, "decode": decode_entries(tokenizers)})
