"""Same work: the losses of two sides over many steps from one start, and how far apart they may be.

fp32. A loss is a mean of B T token losses, each a sum over 50,272 exponentials and, below it, sums of at most a few thousand products. Rounding errors of such
sums are random in sign; two orders of adding differ by some units of the last place, u = 2^-24 = 6e-8. What grows is the difference of the trained
parameters: AdamW divides each gradient by its own size, so an element whose gradient is nothing but rounding noise still moves by the learning rate,
in a direction that noise chose. The selftest measures this on PyTorch alone, fp32 against fp64. The bound is that of the issue's order: 1e-4.

bf16. Numbers have 8 bits: unit roundoff u = 2^-9. The sides round in different places (weights and products alike, but residuals, norms, softmax and
gradients differ), and every rounding is of relative size u at most, with random sign. The hidden state that the logits are made of has passed 2 L residual
additions, so its relative error is about sqrt(2 L) u; the logits are of size 1 beside a loss of log(50272) = 10.8, and B T of them are averaged. The difference of two
losses is thus far below u of the loss itself, unless one side computes something else. The bound is u: 2^-9.
"""
FP32_BOUND = 1e-4
BF16_BOUND = 2.0**-9
BOUNDS = {"fp32": FP32_BOUND, "bf16": BF16_BOUND}


def compare(reference, losses, dtype):
    """{"steps", "bound", "largest", "at_step", "agrees"}: the largest relative difference of any step. An empty or short list does not agree."""
    bound = BOUNDS[dtype]
    differences = [abs(a - b) / abs(b) if a == a and b == b and b else float("inf") for a, b in zip(losses, reference)]
    if not differences or len(losses) != len(reference):
        return {"steps": 0, "bound": bound, "largest": None, "at_step": None, "agrees": False}
    largest = max(differences)
    return {"steps": len(differences), "bound": bound, "largest": largest, "at_step": differences.index(largest), "agrees": largest <= bound}


def says(name, result):
    if result["largest"] is None:
        return f"{name}: expected as many losses as the reference; got another number"
    words = "agree" if result["agrees"] else "DO NOT AGREE"
    return (f"{name}: losses of {result['steps']} steps {words}: largest relative difference {result['largest']:.2e} (step {result['at_step']}), "
            f"bound {result['bound']:.2e}")
