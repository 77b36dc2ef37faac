#include "parallel/run/tune_products.h"

#include <algorithm>
#include <set>
#include <span>

#include "core/base/check.h"
#include "core/kernels/attention.h"
#include "parallel/run/product_record.h"
#include "parallel/run/same_attention.h"

namespace permafrost {

namespace {

/// Nobody sees what an executor does while this lives, and nothing of it is captured.
class Unobserved {
 public:
  explicit Unobserved(Executor& executor)
      : executor_(executor), before_(executor.observe(nullptr)), graphs_(executor.use_graphs(false)) {}
  ~Unobserved() {
    executor_.observe(before_);
    executor_.use_graphs(graphs_);
  }
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;

 private:
  Executor& executor_;
  ExecutorObserver* before_;
  bool graphs_;
};

std::string str(const ProductDevice& device) {
  return concat(device.gpu, " (", device.compute_capability, ", ", device.library, ")");
}

/// Rank 0's text, on every rank.
std::string text_of_first(Group& world, std::string text) {
  int64_t bytes = std::ssize(text);
  world.broadcast(flat(std::span(&bytes, 1)), 0, StreamView::caller(), "products").wait();
  text.resize(static_cast<size_t>(bytes));
  world.broadcast(Tensor(text.data(), DType::kU8, Shape{bytes}), 0, StreamView::caller(), "products").wait();
  return text;
}

constexpr const char* kOwnKernels = "own kernels";

/// Who computed what the stream has met so far, own kernels for calls that the library has not included.
std::string attention_of(const Context& context) {
  for (const AttentionChoice& choice : attention_choices(context))
    if (!choice.library.empty()) return choice.library;
  return kOwnKernels;
}

std::set<ProductKey> keys_of(const Context& context) {
  std::set<ProductKey> keys;
  for (const ProductChoice& choice : product_choices(context)) keys.insert(choice.key);
  return keys;
}

void use_stored(const Context& context, const ProductRecord& record) {
  try {
    use_product_choices(context, record.choices);
  } catch (const Error& error) {
    fail(ErrorKind::kWeights, "products.json does not fit this run: ", error.what());
  }
}

void run_all(Executor& executor, const Plan& plan) {
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) executor.run(bucket, nullptr);
}

/// Rank 0 measures, all ranks have its choices afterwards.
void share_tuned(Executor& executor, const Plan& plan, Group& world) {
  const Context& context = executor.context();
  const bool measures = world.rank() == 0;
  if (measures) {
    const ProductTuning tuning(context);
    run_all(executor, plan);
  } else {
    for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) executor.only_gather(bucket);
  }
  const std::string mine = measures ? to_text({product_device(context), product_choices(context)}) : "";
  const std::string text = text_of_first(world, mine);
  if (!measures) use_product_choices(context, parse_product_record(text, "products").choices);
}

}  // namespace

void require_device_of_first(Group& world, const ProductDevice& mine) {
  const ProductDevice first = parse_product_record(text_of_first(world, to_text({mine, {}})), "products").device;
  if (first == mine) return;
  fail(ErrorKind::kConfig,
       "products: all ranks must have the GPU and the library of rank 0, whose choices they share; got ", str(first),
       " on rank 0, ", str(mine), " on rank ", world.rank());
}

PreparedProducts prepare_products(Executor& executor, const Plan& plan, Group& world, bool tune,
                                  const std::string& stored) {
  PreparedProducts prepared;
  prepared.record = stored;
  const Context& context = executor.context();
  if (context.device.kind != DeviceKind::kCuda) return prepared;
  const ProductDevice device = product_device(context);
  if (tune) require_device_of_first(world, device);  // or they would not all measure
  bool known = false;
  std::string attention_then;  // "": nothing is known
  if (!stored.empty()) {
    const ProductRecord record = parse_product_record(stored, "products.json");
    known = record.device == device;
    if (known)
      use_stored(context, record);
    else
      prepared.note = concat("products: algorithms were chosen on ", str(record.device), ", and this is ", str(device),
                             ": ", tune ? "they are tuned anew" : "the first that the library names are taken",
                             "; results may differ in their last bits from what the run would have given there");
    // Records from before there was a choice are of runs with own kernels.
    attention_then = record.attention.empty() ? kOwnKernels : record.attention;
  }
  const Unobserved quiet(executor);
  const bool shares = tune && !known;
  if (shares) share_tuned(executor, plan, world);
  const std::set<ProductKey> before = keys_of(context);
  run_all(executor, plan);
  require_same_attention(world, context);
  const std::string attention = attention_of(context);
  if (!attention_then.empty() && attention_then != attention)
    prepared.note += concat(prepared.note.empty() ? "" : "; ", "attention: was computed by ", attention_then,
                            ", and now by ", attention, ": results may differ in their last bits");
  const std::vector<ProductChoice> choices = product_choices(context);
  for (const ProductChoice& choice : choices)
    if (shares && !before.contains(choice.key))
      fail(ErrorKind::kInternal, "products: every product of rank ", world.rank(), " must be one of rank 0; got ",
           to_string(choice));
  if (shares) prepared.tuned = static_cast<size_t>(std::ranges::count_if(choices, &ProductChoice::tuned));
  prepared.record = to_text({device, choices, attention});
  return prepared;
}

}  // namespace permafrost
