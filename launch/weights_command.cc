#include <filesystem>
#include <iostream>

#include "configs/load.h"
#include "core/weights/inspect.h"
#include "core/weights/random_weights.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "launch/weights_convert.h"
#include "models/weight_names.h"

namespace permafrost {

namespace {

void write_part(const char* part, const PartWeights& weights, const Graph& graph, const config::Config& config,
                const WeightsRandomOptions& options) {
  std::vector<RandomParameter> parameters;
  for (size_t i = 0; i < weights.params.size(); ++i) {
    const ParamInfo& info = graph.params()[static_cast<size_t>(weights.params[i])];
    parameters.push_back({weights.required[i].name, info.shape, info.initializer});
  }
  if (parameters.empty()) return;
  RandomWeightsOptions to;
  to.dtype = *asked_dtype(options.dtype, /*may_keep=*/false);
  to.seed = config.train().seed();
  to.threads = usable_cores();
  to.max_shard_bytes = static_cast<int64_t>(options.shard_gb * 1e9);
  const std::string folder = (std::filesystem::path(options.out) / part).string();
  const WrittenWeights written = write_random(parameters, folder, to);
  std::cout << part << ": " << parameters.size() << " tensors, " << written.bytes << " bytes in "
            << written.files.size() << " files\n"
            << "  --set weights." << part << '=' << folder << '\n';
}

}  // namespace

int run_weights_random(const WeightsRandomOptions& options) {
  const config::Resolved resolved =
      config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  const Graph graph = make_model(resolved.config)->build(DType::kF32, {1, 2, false});
  write_part("vision", vision_weights(graph), graph, resolved.config, options);
  write_part("text", text_weights(graph), graph, resolved.config, options);
  return 0;
}

int run_weights_inspect(const WeightsInspectOptions& options) {
  const WeightSource source = WeightSource::open(options.path);
  std::cout << (options.json ? inspect_json(source) + "\n" : inspect_text(source));
  return 0;
}

}  // namespace permafrost
