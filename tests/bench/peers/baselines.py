"""The sides that are compared with: B0 to B2 of our own modules, B3 in usual.py. A side is set up once and then stepped."""
import os
import time
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from torch import nn

import models
from layers import pack
from workloads import ADAMW

SIDES = ("b0", "b1-sharded", "b1-ignored", "b2", "b2-sharded", "b2-ignored", "b3")


@dataclass
class Options:
    """What can be tuned. Each side's defaults are what was found best; see README.md."""

    micro_batch: int = 0  # samples of a rank computed together; 0 for what is best: half of them in bf16 where weights are not gathered, otherwise all
    loss_rows: int = -1  # rows of logits made at a time; 0 for cross_entropy over all of them, -1 for what is best: 64 on CPUs, 2048 on GPUs
    attention: str = "auto"  # of the decoder: "sdpa", "sdpa32", "products"; what is fastest with bf16 on CPUs
    packed: str = "auto"  # frozen weights also in oneDNN's order: 1, 0, or in bf16 on CPUs where they are whole and not compiled
    compile: str = ""  # a mode of torch.compile; B2 alone has one
    regional: bool = False  # compiled: each block by itself, all with the same code, as PyTorch advises against long compilations; else encoder and decoder as wholes
    freezing: bool = True  # compiled, on CPUs: the encoder's weights are packed as constants
    reshard: bool = False  # B1: frozen parts are dropped after the forward pass and gathered again for the backward pass
    reduce: str = "flat"  # B0 on several ranks: "ddp", or one all-reduce of all gradients ("flat")
    foreach: bool = False  # the optimizer's form that is not fused
    checkpoint: bool = True  # B3: gradient checkpointing
    allocator: bool = True  # glibc keeps freed memory, in huge pages
    inductor_cache: str = ""  # folder of compiled code; "" for PyTorch's own

    def __str__(self):
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name != "inductor_cache")


def parse_options(words):
    """key=value words over the defaults."""
    options = Options()
    for word in words:
        key, _, value = word.partition("=")
        kinds = {f.name: f.type for f in fields(Options)}
        if key not in kinds:
            raise ValueError(f"option: expected one of {', '.join(kinds)}; got {key}")
        setattr(options, key, value in ("1", "true", "True") if kinds[key] is bool else kinds[key](value))
    return options


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def make_optimizer(parameters, options):
    return torch.optim.AdamW(parameters, fused=not options.foreach, foreach=options.foreach, **ADAMW)


class Side:
    """B0 and, compiled, B2 of it: everything on every rank, gradients of the trained part averaged."""

    def __init__(self, workload, folder, dtype, device, ranks, options):
        self.workload, self.ranks, self.options, self.device, self.dtype = workload, ranks, options, device, dtype
        self.samples = workload.batch // ranks
        if options.loss_rows < 0:
            options.loss_rows = 2048 if device.type == "cuda" else 64
        self.size = options.micro_batch = options.micro_batch or self.usual_size()
        self.model = self.load(folder)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what loading needed besides: other sides are on the card too
        self.wrap()
        self.optimizer = make_optimizer(trained(self.model), options)

    def usual_size(self):
        """In bf16 half of a rank's samples fit its caches better, and are enough rows for a product."""
        halves = self.device.type == "cpu" and self.dtype == torch.bfloat16 and not self.options.compile
        return max(1, self.samples // 2) if halves else self.samples

    def load(self, folder):
        return models.build(self.workload, folder, self.dtype, self.device, self.options)

    def pack(self):
        options = self.options
        if options.packed == "auto":
            options.packed = "1" if not options.compile and self.device.type == "cpu" and self.dtype == torch.bfloat16 else "0"
        if options.packed == "1":
            pack(self.model, self.size * self.workload.tokens)

    def wrap(self):
        self.pack()
        compile_parts(self.model, self.options, self.device, blocks=self.options.regional)
        self.call = self.model
        if self.ranks > 1 and self.options.reduce == "ddp":
            self.call = nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True, broadcast_buffers=False)

    def micro_batches(self, batch):
        size = self.size
        return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, self.samples, size)]

    def backward(self, batch):
        """One micro-batch: gradients are added, its part of this rank's loss is returned."""
        total = self.call(batch)
        loss = models.mean_loss(total, self.samples)
        loss.backward()
        return loss.detach()

    def step(self, batch):
        """A whole optimizer step. Returns this rank's loss, a tensor that the device may still be working on."""
        loss = 0
        parts = self.micro_batches(batch)
        for index, part in enumerate(parts):
            self.before(index == len(parts) - 1)
            loss = loss + self.backward(part)
        self.reduce()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def before(self, last):
        """Before each micro-batch. Gradients travel with the last one only."""
        if self.options.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        if isinstance(self.call, nn.parallel.DistributedDataParallel):
            self.call.require_backward_grad_sync = last

    def reduce(self):
        if self.ranks == 1 or self.options.reduce == "ddp":
            return
        gradients = [p.grad for p in trained(self.model)]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    def parameters_count(self):
        return sum(p.numel() for p in trained(self.model)), sum(p.numel() for p in self.model.parameters())

    def checkpoint(self, folder, rank):
        """What a careful user keeps: the trained part and the optimizer's state, whole on rank 0. Returns (bytes, seconds)."""
        start = time.perf_counter()
        size = 0
        if rank == 0:
            path = os.path.join(folder, "b0.pt")
            state = {k: v for k, v in self.model.state_dict().items() if k in {n for n, p in self.model.named_parameters() if p.requires_grad}}
            torch.save({"model": state, "optimizer": self.optimizer.state_dict()}, path)
            sync(path)
            size = os.path.getsize(path)
        return size, time.perf_counter() - start


class FsdpSide(Side):
    """B1: fully_shard over each block, with the frozen parts sharded too or left whole."""

    def usual_size(self):
        """Sharded, every micro-batch would gather the parameters again."""
        return self.samples if self.sharded else super().usual_size()

    def pack(self):
        """What is sharded cannot be packed: it changes place."""
        if self.sharded and self.options.packed == "1":
            raise ValueError("option: packed=1 needs frozen weights that are whole; got a sharded side")
        if self.sharded:
            self.options.packed = "0"
        super().pack()

    def __init__(self, *arguments, sharded):
        self.sharded = sharded
        super().__init__(*arguments)

    def wrap(self):
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self.pack()
        model, options = self.model, self.options
        mesh = dist.init_device_mesh(self.device.type, (self.ranks,))
        policy = MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        compile_parts(model, options, self.device, blocks=True)
        frozen = {p for p in model.parameters() if not p.requires_grad}
        shared = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": options.reshard}
        for module in trained_modules(model):
            fully_shard(module, **shared)
        if self.sharded:
            for module in frozen_modules(model):
                fully_shard(module, **shared)
            fully_shard(model, **shared)
        else:
            fully_shard(model, ignored_params=frozen, **shared)
        self.call = model

    def before(self, last):
        self.model.set_requires_gradient_sync(last)

    def reduce(self):
        pass  # reduce-scatter is part of backward; the mean over ranks too

    def checkpoint(self, folder, rank):
        """Distributed checkpoint of the trained part and the optimizer's state, each rank its own shards."""
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict

        start = time.perf_counter()
        path = os.path.join(folder, "dcp")
        state = {"model": get_model_state_dict(self.model, options=StateDictOptions(ignore_frozen_params=True)),
                 "optimizer": get_optimizer_state_dict(self.model, self.optimizer)}
        dcp.save(state, checkpoint_id=path)
        seconds = time.perf_counter() - start
        return sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path)) if rank == 0 else 0, seconds


def trained_modules(model):
    """The smallest modules that hold the trained part: what is gathered together."""
    found = [m for name, m in model.named_children() if name in ("connector", "prompt_module", "projector")]
    return found + [layer.adaptor for layer in model.text.layers if layer.adaptor is not None]


def frozen_modules(model):
    """Blocks of both experts."""
    return [*(model.vision.blocks if hasattr(model, "vision") else []), *model.text.layers]


def compile_parts(model, options, device, blocks=False):
    """B2. Of B0: the encoder, which may be compiled with its weights as constants, and the rest, which has gradients. Of B1: each block."""
    if not options.compile:
        return
    mode = None if options.compile == "default" else options.compile
    if blocks:
        # Lengths are few: code for each of them rather than for any length.
        for module in frozen_modules(model):
            module.compile(mode=mode, dynamic=False)
        return
    if hasattr(model, "vision") and device.type == "cpu":
        settings = {"freezing": options.freezing, "max_autotune": options.compile == "max-autotune"}
        model.encode = torch.compile(model.encode, options=settings, fullgraph=True)
    elif hasattr(model, "vision"):  # weights are in the order that products take there
        model.encode = torch.compile(model.encode, mode=mode, fullgraph=True)
    model.decode = torch.compile(model.decode, mode=mode, fullgraph=True)


def sync(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def make_side(name, *arguments):
    """arguments: workload, folder, dtype, device, ranks, options"""
    options = arguments[-1]
    if name.startswith("b2") and not options.compile:
        options.compile = "default"
    if name == "b3":
        from usual import UsualSide

        return UsualSide(*arguments)
    if name in ("b0", "b2"):
        return Side(*arguments)
    if name in SIDES:
        return FsdpSide(*arguments, sharded=name.endswith("sharded"))
    raise ValueError(f"side: expected one of {', '.join(SIDES)}; got {name}")
