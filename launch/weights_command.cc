#include <filesystem>
#include <iostream>

#include "configs/load.h"
#include "core/weights/inspect.h"
#include "core/weights/random_weights.h"
#include "launch/commands.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "models/weight_names.h"

namespace permafrost {

namespace {

DType dtype_of(const std::string& name) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    if (to_string(dtype) == name) return dtype;
  fail(ErrorKind::kConfig, "weights random: --dtype must be f32, bf16 or f16; got ", name);
}

void write_part(const char* part, const PartWeights& weights, const Graph& graph, const config::Config& config,
                const WeightsRandomOptions& options) {
  std::vector<RandomParameter> parameters;
  for (size_t i = 0; i < weights.params.size(); ++i) {
    const ParamInfo& info = graph.params()[static_cast<size_t>(weights.params[i])];
    parameters.push_back({weights.required[i].name, info.shape, info.initializer});
  }
  if (parameters.empty()) return;
  RandomWeightsOptions to;
  to.dtype = dtype_of(options.dtype);
  to.seed = config.train().seed();
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
