"""Decoding goldens on a tiny random OPT, greedy and beams, by the references below: with the length normalisation of
later versions they must agree with transformers' generate; that of 4.2x (BeamSearchScorer written out) has no other truth."""
import itertools

import torch

from opt import build_opt, config_of, opt_weights
from store import Source, flatten, save, save_json

EOS, PAD = 2, 1
MODEL = config_of(2, 16, 2, 32, 29, 40, word=12)
PROMPTS = [[2, 7, 11], [2, 23, 5], [2, 14, 14], [2, 3, 27]]


def reference(model, prompt, beams, length_penalty, early_stopping, min_new, max_new, full):
    """BeamSearchScorer of transformers 4.2x (full) and 4.31 to 4.4x (not full) for one prompt: tokens, sum, score."""
    texts, sums, finished, worst, done = [list(prompt)], [0.0], [], 1e9, False

    def add(text, total, ended):
        nonlocal worst
        length = len(text) if full else len(text) - len(prompt) + ended
        score = total / length**length_penalty
        if len(finished) < beams or score > worst:
            finished.append((score, total, text, ended))
            if len(finished) > beams:
                order = sorted((s, i) for i, (s, *_) in enumerate(finished))
                del finished[order[0][1]]
                worst = order[1][0]
            else:
                worst = min(score, worst)

    while True:
        with torch.no_grad():
            logits = model(torch.tensor(texts)).logits[:, -1]
        scores = logits.log_softmax(-1)
        if len(texts[0]) - len(prompt) < min_new:
            scores[:, EOS] = -torch.inf
        flat = (scores + torch.tensor(sums, dtype=scores.dtype)[:, None]).flatten()
        vocab = scores.shape[1]
        best = sorted(range(len(flat)), key=lambda i: (-flat[i].item(), i))[: 2 * beams]
        cur_len, next_texts, next_sums = len(texts[0]), [], []
        for rank, i in enumerate(best):
            beam, token, total = i // vocab, i % vocab, flat[i].item()
            if token == EOS:
                if rank < beams:
                    add(texts[beam], total, True)
                continue
            next_texts.append(texts[beam] + [token])
            next_sums.append(total)
            if len(next_texts) == beams:
                break
        if len(finished) >= beams:
            length = cur_len if full else cur_len + 1 - len(prompt)
            done = early_stopping or worst >= flat[best[0]].item() / length**length_penalty
        texts, sums = next_texts, next_sums
        if done or len(texts[0]) - len(prompt) >= max_new:
            break
    if not done:
        for text, total in zip(texts, sums):
            add(text, total, False)
    score, total, text, ended = sorted(finished, key=lambda f: f[0])[-1]
    return text[len(prompt):], total, score, ended


def greedy(model, prompt, min_new, max_new):
    text, total, ended = list(prompt), 0.0, False
    while not ended and len(text) - len(prompt) < max_new:
        with torch.no_grad():
            scores = model(torch.tensor([text])).logits[0, -1].log_softmax(-1)
        if len(text) - len(prompt) < min_new:
            scores[EOS] = -torch.inf
        token = int(scores.argmax())
        total += scores[token].item()
        ended = token == EOS
        if not ended:
            text.append(token)
    return text[len(prompt):], total, ended


def generate(model, beams, length_penalty, early_stopping, min_new, max_new):
    ids = torch.tensor(PROMPTS)
    extra = {"length_penalty": length_penalty, "early_stopping": early_stopping} if beams > 1 else {}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=beams, do_sample=False, max_new_tokens=max_new,
                         min_new_tokens=min_new, eos_token_id=EOS, pad_token_id=PAD, return_dict_in_generate=True,
                         output_scores=True, use_cache=False, **extra)
    texts = []
    for row in out.sequences[:, ids.shape[1]:].tolist():
        texts.append((row[: row.index(EOS)], True) if EOS in row else (row, False))
    return texts, out.sequences_scores.tolist() if beams > 1 else None


def make_decoding():
    torch.set_default_dtype(torch.float64)
    model = build_opt("decoding", MODEL)
    with torch.no_grad():  # sharper, with later positions that differ, and an end token that comes up: texts end early, late and not at all
        decoder = model.model.decoder
        decoder.project_out.weight *= 2
        decoder.embed_positions.weight *= 3
        towards_end = decoder.project_out.weight.T @ decoder.embed_tokens.weight[EOS]
        decoder.final_layer_norm.bias += towards_end / towards_end.square().sum()
    save("decoding_weights", opt_weights(model), MODEL)
    torch.set_default_dtype(torch.float32)
    model = model.float()
    cases, endings = [], 0
    for beams, penalty, early, (min_new, max_new) in itertools.product((1, 3, 5), (1.0, 0.0, 2.0, -1.0), (False, True), ((0, 8), (3, 12))):
        if beams == 1 and (penalty != 1.0 or early):
            continue
        setting = {"beams": beams, "length_penalty": penalty, "early_stopping": early, "min_new": min_new, "max_new": max_new}
        installed, scores = generate(model, **setting)
        for full in (False, True):
            texts = []
            for b, prompt in enumerate(PROMPTS):
                if beams == 1:
                    tokens, total, ended = greedy(model, prompt, min_new, max_new)
                    score = None
                else:
                    tokens, total, score, ended = reference(model, prompt, full=full, **setting)
                if not full:
                    assert (tokens, ended) == installed[b], (setting, b, tokens, ended, installed[b])
                    assert beams == 1 or abs(score - scores[b]) < 1e-5, (setting, b, score, scores[b])
                endings += ended
                texts.append({"tokens": tokens, "ended": ended, "sum": total, "score": score})
            cases.append(setting | {"normalisation": "full" if full else "generated", "texts": texts})
    print(f"{endings} of {4 * len(cases)} texts end")
    assert len(cases) < endings < 4 * len(cases)
    save_json("decoding", {"prompts": PROMPTS, "cases": cases})
