"""What a step should cost by the plan's own counts, given the rates of one reference point, and where a measurement leaves that.

A point is the JSON of `permafrost bench step --profile --json`. Work is counted by the plan: floating-point operations of products
and attention, bytes of the tensors of everything else, elements of the trainable space in the phases behind the micro-batches.
Rates are those that the reference point of the same curve had, term by term; so at the reference both agree by construction,
and elsewhere the model says what the step would take if every term kept its rate."""

BY_FLOPS = ("linear", "head_loss", "attention", "attention_fused")
PHASES = ("reduce_gradients", "gather_norms", "optimizer", "gather_working")
# What is neither an operation nor a phase: waiting for data, inputs, the vote, the executor's walk. Per micro-batch.
REST = ("waiting for data", "filling inputs", "between operations", "waiting for sharded weights", "vote", "other")


def kind_of(group):
    name = f"{group['kind']} {group['direction']}".strip()
    return name if group["kind"] in BY_FLOPS or group["kind"] == "cross_entropy" or group["kind"] == "sum_gradient" else "other operations"


def micro_batches(point):
    """Those of rank 0 in a step."""
    every = point["global_batch"] // point["micro_batch"]
    return -(-every // point["ranks"])


def terms(point):
    """{term: (work, seconds)} of a step of rank 0."""
    found = {}

    def add(name, work, seconds):
        before = found.get(name, (0.0, 0.0))
        found[name] = (before[0] + work, before[1] + seconds)

    for group in point["profile"]["groups"]:
        work = group["flops_per_call"] if group["kind"] in BY_FLOPS else group["bytes_per_call"]
        add(kind_of(group), work * group["calls_per_step"], group["mean_seconds"])
    for phase in PHASES:
        add(phase, point["parameters"]["trainable"], point["profile"]["parts_ms"][phase] / 1e3)
    for rest in REST:
        add("rest", micro_batches(point) / len(REST), point["profile"]["parts_ms"][rest] / 1e3)
    return found


def cores_per_rank(point):
    """Cores that a rank's threads really have, where ranks outnumber them."""
    threads, ranks, cores = point["threads_per_rank"], point["ranks"], point["cores"]
    return threads * min(1.0, cores / (threads * ranks))


def predict(point, reference):
    """{term: seconds} at the reference's rates, more or fewer cores taken into account."""
    slower = cores_per_rank(reference) / cores_per_rank(point)
    at_reference, predicted = terms(reference), {}
    for name, (work, _) in terms(point).items():
        work_there, seconds_there = at_reference.get(name, (0.0, 0.0))
        if work_there > 0:
            predicted[name] = work / work_there * seconds_there * slower
    return predicted


def compare(point, reference):
    """Measured and predicted seconds of a step, and the terms that explain the difference, the largest first:
    (term, measured, predicted or None where the reference has no such work)."""
    predicted, measured = predict(point, reference), {name: seconds for name, (_, seconds) in terms(point).items()}
    rows = [(name, seconds, predicted.get(name)) for name, seconds in measured.items()]
    rows.sort(key=lambda row: -abs(row[1] - (row[2] or 0.0)))
    return point["step_seconds"]["median"], sum(predicted.values()), rows
