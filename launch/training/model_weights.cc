#include "launch/training/model_weights.h"

#include <algorithm>

#include "core/weights/load.h"
#include "core/weights/match.h"
#include "models/weight_names.h"

namespace permafrost {

namespace {

std::span<std::byte> bytes_of(const Tensor& t) {
  return {static_cast<std::byte*>(t.raw()), static_cast<size_t>(t.bytes())};
}

class WeightLoader {
 public:
  WeightLoader(const config::Config& config, const Plan& plan, const StepMemory& memory, ShardedAdamw& optimizer)
      : config_(config), plan_(plan), memory_(memory), optimizer_(optimizer) {}

  void load_part(const std::string& what, const std::string& path, const PartWeights& part) {
    if (part.params.empty()) return;
    if (path.empty()) {
      for (int p : part.params) fill_random(plan_.params[static_cast<size_t>(p)]);
      if (what == "adapter") return;  // starting from the published initialisation is the ordinary case
      lines.push_back(concat(what, ": RANDOM weights from seed ", config_.train().seed(), " (weights.", what,
                             " is not set): outputs mean nothing"));
      return;
    }
    const WeightSource source = WeightSource::open(path);
    const LoadReport report = match_parameters(part.required, source, part.rules);
    std::string changed;
    double largest_change = 0;
    for (size_t i = 0; i < part.params.size(); ++i) {
      const ParamPlan& param = plan_.params[static_cast<size_t>(part.params[i])];
      const double change = load(source, *report.matches[i].tensor, param);
      if (change > largest_change) {
        largest_change = change;
        changed = param.name;
      }
    }
    std::string line = concat(what, ": ", path, ": ", report.str());
    if (largest_change > 0) line += concat("; largest relative change by rounding ", largest_change, " in ", changed);
    lines.push_back(line);
  }

  std::vector<std::string> lines;

 private:
  /// The part of a trainable parameter that this rank owns; undefined when none.
  Tensor own_part(const ParamPlan& param, int64_t& first_element) const {
    const int64_t from = std::max(optimizer_.slice_begin(), param.trainable_offset);
    const int64_t to = std::min(optimizer_.slice_end(), param.trainable_offset + param.shape.elements());
    first_element = from - param.trainable_offset;
    if (from >= to) return {};
    return optimizer_.master().rows(from - optimizer_.slice_begin(), to - optimizer_.slice_begin());
  }

  void fill_random(const ParamPlan& param) const {
    int64_t first = 0;
    const Tensor target = param.trainable ? own_part(param, first) : memory_.param(param);
    if (!target.defined()) return;
    fill(param.initializer, config_.train().seed(), param.name, target.dtype(), first, bytes_of(target));
  }

  double load(const WeightSource& source, const SourceTensor& tensor, const ParamPlan& param) const {
    LoadOptions options;
    options.with_change = true;
    if (!param.trainable)
      return load_tensor(source, tensor, memory_.param(param), options).statistics.largest_relative_change;
    int64_t first = 0;
    const Tensor target = own_part(param, first);
    if (target.defined()) load_slice(source, tensor, first, DType::kF32, bytes_of(target));
    return 0;
  }

  const config::Config& config_;
  const Plan& plan_;
  const StepMemory& memory_;
  ShardedAdamw& optimizer_;
};

}  // namespace

LoadedWeights load_model_weights(const config::Config& config, const Plan& plan, const StepMemory& memory,
                                 ShardedAdamw& optimizer) {
  const Graph& graph = plan.graphs.front();
  std::vector<bool> trainable;
  for (const ParamPlan& param : plan.params) trainable.push_back(param.trainable);
  WeightLoader loader(config, plan, memory, optimizer);
  loader.load_part("vision", config.weights().vision(), vision_weights(graph));
  loader.load_part("text", config.weights().text(), text_weights(graph));
  PartWeights adapter = adapter_weights(graph, trainable);
  if (config.weights().adapter().empty()) {
    // Trainable parameters of the backbones keep what their files gave them.
    std::erase_if(adapter.params, [&](int p) {
      const std::string& name = plan.params[static_cast<size_t>(p)].name;
      return name.starts_with("vision.") || name.starts_with("text.");
    });
  }
  loader.load_part("adapter", config.weights().adapter(), adapter);
  return {loader.lines};
}

std::string hash_frozen(const Plan& plan, const StepMemory& memory, ThreadPool& pool) {
  std::vector<const ParamPlan*> frozen;
  for (const ParamPlan& param : plan.params)
    if (!param.trainable) frozen.push_back(&param);
  std::vector<std::string> hashes(frozen.size());
  pool.run(static_cast<int64_t>(frozen.size()), [&](int64_t i, int) {
    const Tensor t = memory.param(*frozen[static_cast<size_t>(i)]);
    hashes[static_cast<size_t>(i)] = sha256(t.raw(), static_cast<size_t>(t.bytes()));
  });
  CombinedHash combined;
  for (size_t i = 0; i < frozen.size(); ++i) combined.add(frozen[i]->name, frozen[i]->placement.stored, hashes[i]);
  return combined.finish();
}

}  // namespace permafrost
