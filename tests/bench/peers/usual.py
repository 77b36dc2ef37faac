"""B3: the usual stack. Models of transformers and timm as their pages show them, modules of one's own added to them, bf16 by autocast over a
bf16 base with fp32 trained parts (PEFT's way), gradient checkpointing on, all logits in fp32. Dropout is set to 0 so that losses can be compared."""
import os
import time

import timm
import torch
import torch.distributed as dist
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

import models
from baselines import Side, sync
from layers import Adaptor, Linear
from workloads import OPT_SIZES, POSITIONS, VIT_SIZES, VOCABULARY

assert timm.__version__  # named in the results


def text_model(size):
    layers, width, heads, ffn = OPT_SIZES[size]
    config = OPTConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, ffn_dim=ffn, word_embed_proj_dim=width,
                       max_position_embeddings=POSITIONS, dropout=0.0, attention_dropout=0.0)
    return OPTForCausalLM(config)


def vision_model(size):
    depth, dim, heads = VIT_SIZES[size]
    return VisionTransformer(img_size=224, patch_size=16, num_classes=0, embed_dim=dim, depth=depth, num_heads=heads)


class Usual(nn.Module):
    """Any of the workloads. The same names of trained parameters as in models.py."""

    def __init__(self, workload):
        super().__init__()
        self.workload = workload
        width = OPT_SIZES[workload.size][1]
        self.text = text_model(workload.size)
        if workload.vision:
            self.vision = vision_model(workload.vision)
            dim = VIT_SIZES[workload.vision][1]
        if workload.name == "e1":
            self.connector, self.prompt_module = models.Connectors(Linear(dim, width) for _ in range(workload.features)), models.PromptMlp(workload.prompts, width)
        elif workload.name == "e3":
            self.projector = nn.Sequential(Linear(dim, width))
        else:
            for layer in self.text.model.decoder.layers:
                layer.fc2 = nn.Sequential(layer.fc2, Adaptor(width, workload.factor))

    def forward(self, batch):
        return {"e1": self.epalm, "e3": self.project, "e4": self.adapted}[self.workload.name](batch)

    def epalm(self, batch):
        """As the published code: the decoder's layers with a token written in front of them."""
        with torch.no_grad():
            features = self.vision.forward_intermediates(batch["images"], indices=self.workload.features, return_prefix_tokens=True, norm=True, intermediates_only=True)
        connected = self.connector([prefix[:, 0] for _, prefix in features])
        decoder, ids = self.text.model.decoder, batch["ids"]
        tokens = decoder.embed_tokens(ids) + decoder.embed_positions(torch.ones_like(ids), 0)
        hidden = torch.cat([self.prompt_module(tokens.dtype).expand(len(ids), -1, -1), tokens], 1)
        mask = additive_mask(hidden.shape[1], hidden)
        for index, layer in enumerate(decoder.layers):
            which = models.feature_of_layer(index, self.workload.window, self.workload.features)
            if which is not None:
                first = index == self.workload.window[0]
                hidden = torch.cat([connected[which].to(hidden.dtype), hidden if first else hidden[:, 1:]], 1)
                if first:
                    mask = additive_mask(hidden.shape[1], hidden)
                    mask[..., 0, :] = 0
            hidden = layer(hidden, attention_mask=mask)
        logits = self.text.lm_head(decoder.final_layer_norm(hidden))
        return self.loss(logits, labels_behind(hidden.shape[1] - ids.shape[1], ids))

    def project(self, batch):
        """As LLaVA: embeddings instead of token ids."""
        with torch.no_grad():
            patches = self.vision.forward_features(batch["images"])[:, 1:]
        embedded = torch.cat([self.projector(patches), self.text.get_input_embeddings()(batch["ids"])], 1)
        return self.loss(self.text(inputs_embeds=embedded, use_cache=False).logits, labels_behind(patches.shape[1], batch["ids"]))

    def adapted(self, batch):
        return self.loss(self.text(input_ids=batch["ids"], use_cache=False).logits, batch["ids"])

    def loss(self, logits, labels):
        """transformers' own: all logits in fp32, shifted; a sum, so that it can be compared."""
        return nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def labels_behind(slots, ids):
    """The texts behind some slots, which predict nothing; nor does the last of them predict the first token, which is given."""
    labels = torch.cat([ids.new_full((len(ids), slots), -100), ids], 1)
    labels[:, slots] = -100
    return labels


def additive_mask(length, like):
    """[1,1,S,S], the form transformers' layers take"""
    blocked = torch.ones(length, length, dtype=torch.bool, device=like.device).triu_(1)
    return torch.zeros(1, 1, length, length, dtype=like.dtype, device=like.device).masked_fill_(blocked, torch.finfo(like.dtype).min)


def usual_name(name):
    """Our name of a trainable parameter -> its name here."""
    return name.replace("model_text.model.", "text.model.")


class UsualSide(Side):
    def usual_size(self):
        return self.samples

    def read(self, folder):
        """The state dict, and the names of what is trained."""
        text, vision, trained = (list(models.read_tensors(f"{folder}/{name}", self.device)) if name else []
                                 for name in ("weights/text", self.workload.vision and "weights/vision", "adapter.safetensors"))
        tensors = {f"text.{k if k.startswith('model.') else 'model.' + k}": v for k, v in text if k != "lm_head.weight"}
        if self.workload.factor:
            tensors = {k.replace(".fc2.", ".fc2.0."): v for k, v in tensors.items()}
        tensors |= {f"vision.{k}": v for k, v in vision if not k.startswith("head.")}
        trained = {usual_name(k): v for k, v in trained}
        return tensors | trained, set(trained)

    def load(self, folder):
        """Without drawing weights first, as from_pretrained does it: billions of random numbers take a minute."""
        with torch.device("meta"):
            model = Usual(self.workload)
        tensors, trained = self.read(folder)
        tensors = {k: v.to(device=self.device, dtype=torch.float32 if k in trained else self.dtype, copy=self.device.type == "cpu") for k, v in tensors.items()}
        missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
        if unexpected or set(missing) - {"text.lm_head.weight"}:
            raise ValueError(f"b3: expected a weight for every parameter and no other; missing {missing}, unexpected {unexpected}")
        model.text.lm_head.weight = model.text.get_input_embeddings().weight
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        left = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.device.type == "meta"]
        if left:
            raise ValueError(f"b3: expected values in every parameter and buffer; got none in {', '.join(left)}")
        model.train()
        if self.options.checkpoint:
            enable = getattr(model.text, "activation_checkpointing_enable", None) or model.text.gradient_checkpointing_enable  # of transformers before 5.20
            enable()
        return model

    def wrap(self):
        self.call = self.model
        if self.ranks > 1:
            self.call = nn.parallel.DistributedDataParallel(self.model)

    def backward(self, batch):
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            total = self.call(batch)
        loss = models.mean_loss(total, self.samples)
        loss.backward()
        return loss.detach()

    def reduce(self):
        pass  # DistributedDataParallel has done it

    def checkpoint(self, folder, rank):
        """What Trainer writes without PEFT: the whole state dict and the optimizer's state."""
        start, size = time.perf_counter(), 0
        if rank == 0:
            for name, state in (("pytorch_model.bin", self.model.state_dict()), ("optimizer.pt", self.optimizer.state_dict())):
                path = os.path.join(folder, name)
                torch.save(state, path)
                sync(path)
                size += os.path.getsize(path)
        if dist.is_initialized():
            dist.barrier()
        return size, time.perf_counter() - start
