"""Same work: the losses of two sides over many steps from one start, and how far apart they may be.

fp32. A loss is a mean of B T token losses, each made of sums of up to 50,272 terms. Rounding errors of such sums are random in sign, so two orders of adding
differ by a few units in the last place, u = 2^-24. The bound is 32 u = 1.9e-6 for up to 40 steps. PyTorch against itself with other orders (attention and loss
in other forms) stays below 4e-7 for 40 steps of E1 with OPT-125M at the learning rate of workloads.py; at ten times that rate training itself amplifies
rounding, whoever computes, which is why the rate is what it is. It does so over more steps too: 100 steps of 4 samples take PyTorch 2.9e-6 (micro-batches of 2) and 3.3e-6 (other
forms) from itself. So the bound grows with the steps beyond 40, to 4.8e-6 for 100.

bf16. Numbers have 8 bits: unit roundoff u = 2^-9. The sides round in different places (residuals, norms, softmax, gradients). The hidden state that the logits
are made of has passed 2 L residual additions, so its relative error is about sqrt(2 L) u = 0.01 for 12 layers, and as much is the error of a token's loss, logits being of
size 1. The mean over n tokens, divided by a loss of log(50272) = 10.8 a token, has about 0.01 / sqrt(n) / 10.8: 7e-5 for 176 tokens (4 texts of 45). The bound is u / 8 = 2.4e-4
for 176 tokens and fewer, and falls with the root of n: 1.2e-4 for 704 tokens (16 texts), which is less than what two different batches of random texts differ by.
With L it grows as that error does, by sqrt(L / 12) for more than 12 layers: 2.0e-4 for 16 texts and 32 layers. What changes a loss by less than that, such as one row of a mask, bf16 cannot show; fp32 does, and selftest.py shows that it does.
"""
FP32_BOUND, FP32_STEPS = 32 * 2.0**-24, 40
BF16_BOUND, BF16_TOKENS, BF16_LAYERS = 2.0**-12, 176, 12


def bound_of(dtype, tokens, steps, layers=BF16_LAYERS):
    """tokens: that a loss is the mean of; layers: of the decoder."""
    if dtype == "fp32":
        return FP32_BOUND * max(1.0, steps / FP32_STEPS)
    return BF16_BOUND * min(1.0, (BF16_TOKENS / tokens) ** 0.5) * max(1.0, layers / BF16_LAYERS) ** 0.5


def compare(reference, losses, dtype, tokens, layers=BF16_LAYERS):
    """{"steps", "bound", "largest", "at_step", "agrees"}: the largest relative difference of any step. An empty or short list does not agree."""
    bound = bound_of(dtype, tokens, len(reference), layers)
    differences = [abs(a - b) / abs(b) if a == a and b == b and b else float("inf") for a, b in zip(losses, reference)]
    if not differences or len(losses) != len(reference):
        return {"steps": 0, "bound": bound, "largest": None, "at_step": None, "agrees": False}
    largest = max(differences)
    return {"steps": len(differences), "bound": bound, "largest": largest, "at_step": differences.index(largest), "agrees": largest <= bound}


def says(name, batch, result):
    if result["largest"] is None:
        return f"{name}: expected as many losses as the reference; got another number"
    words = "agree" if result["agrees"] else "DO NOT AGREE"
    return (f"{name}: losses of {result['steps']} steps of {batch} samples {words}: largest relative difference {result['largest']:.2e} (step {result['at_step']}), "
            f"bound {result['bound']:.2e}")
