"""OPT goldens: transformers' OPTForCausalLM in fp64, fp32 weights and results."""
import torch
import torch.nn.functional as F
from transformers import OPTConfig, OPTForCausalLM

from store import Source, save
from vit import fill, weights_of

PAD, BOS = 1, 2


def config_of(layers, hidden, heads, ffn, vocab, positions, word=None, pre_norm=True):
    """Hugging Face's names, which are also the names of the metadata."""
    return {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "ffn_dim": ffn, "vocab_size": vocab,
            "word_embed_proj_dim": word or hidden, "max_position_embeddings": positions, "do_layer_norm_before": pre_norm,
            "pad_token_id": PAD, "bos_token_id": BOS}


MODELS = {  # configuration, lengths of the samples of the batch
    "opt_pre": (config_of(3, 20, 4, 44, 61, 40), [11, 7]),
    "opt_post": (config_of(3, 24, 3, 40, 61, 32, word=10, pre_norm=False), [9, 9, 4]),
    "opt_odd": (config_of(5, 21, 7, 33, 53, 30), [13, 2, 8]),
}


def build_opt(name, config):
    model = OPTForCausalLM(OPTConfig(**config, eos_token_id=BOS, dropout=0.0, attention_dropout=0.0, activation_function="relu"))
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    fill(model, Source(name))
    model.lm_head.weight = model.model.decoder.embed_tokens.weight
    return model.eval()


def opt_weights(model):
    weights = weights_of(model)
    assert torch.equal(weights["lm_head.weight"], weights["model.decoder.embed_tokens.weight"])
    del weights["lm_head.weight"]
    return weights


def padded_batch(rows):
    """Token lists -> ids, attention mask, labels (ids with -100 at pads)."""
    width = max(len(r) for r in rows)
    ids = torch.tensor([r + [PAD] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    return ids, mask, ids.masked_fill(mask == 0, -100)


def random_batch(source, vocab, lengths):
    return padded_batch([[BOS] + source.integers(3, vocab, n - 1).tolist() for n in lengths])


def walk_values(model, ids, mask, labels):
    """One forward whose values are picked up by hooks. HF's own hidden-state list ends after the final norm; hooks see every layer itself."""
    decoder, seen = model.model.decoder, {}

    def keep(name):
        return lambda module, arguments, output: seen.__setitem__(name, output[0] if isinstance(output, tuple) else output)

    def keep_input(module, arguments, keywords):
        seen["text.embed.out"] = arguments[0] if arguments else keywords["hidden_states"]

    hooks = [layer.register_forward_hook(keep(f"text.layers.{i}.out")) for i, layer in enumerate(decoder.layers)]
    hooks.append(decoder.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
    hooks.append(decoder.register_forward_hook(lambda module, arguments, output: seen.__setitem__("text.final.out", output.last_hidden_state)))
    result = model(input_ids=ids, attention_mask=mask, labels=labels, return_dict=True)
    for hook in hooks:
        hook.remove()
    return seen, result


def sample_sums(logits, labels):
    """Token losses added up per sample; logits may be longer than labels (slots in front of the text, never predicted)."""
    slots = logits.shape[1] - labels.shape[1]
    targets = F.pad(labels[:, 1:], (slots, 0), value=-100)
    losses = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none", ignore_index=-100)
    return losses.view(targets.shape).sum(1), int((targets != -100).sum())


def make_opt():
    torch.set_default_dtype(torch.float64)  # transformers builds its masks in the default type
    for name, (config, lengths) in MODELS.items():
        model = build_opt(name, config)
        ids, mask, labels = random_batch(Source(f"{name}.inputs"), config["vocab_size"], lengths)
        values, result = walk_values(model, ids, mask, labels)
        sums, count = sample_sums(result.logits, labels)
        assert abs(sums.sum() / count - result.loss) < 1e-12
        result.loss.backward()
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels, "logits": result.logits, "loss": result.loss, "loss_sample_sum": 0.1 * sums.mean()} | values
        tensors.update({f"grad:{k}": p.grad for k, p in model.named_parameters()})
        save(f"{name}_weights", opt_weights(model), config)
        save(name, tensors, config)
    torch.set_default_dtype(torch.float32)
