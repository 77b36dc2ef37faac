#include <filesystem>
#include <iostream>

#include "configs/load.h"
#include "core/weights/inspect.h"
#include "core/weights/random_weights.h"
#include "launch/command.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "models/weight_names.h"

namespace permafrost {

namespace {

struct RandomOptions {
  ConfigOptions config;
  std::string out;
  std::string dtype = "f16";
  double shard_gb = 5;
};

struct InspectOptions {
  std::string path;
  bool json = false;
};

DType dtype_of(const std::string& name) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    if (to_string(dtype) == name) return dtype;
  fail(ErrorKind::kConfig, "weights random: --dtype must be f32, bf16 or f16; got ", name);
}

void write_part(const char* part, const PartWeights& weights, const Graph& graph, const config::Config& config, const RandomOptions& options) {
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
  std::cout << part << ": " << parameters.size() << " tensors, " << written.bytes << " bytes in " << written.files.size() << " files\n"
            << "  --set weights." << part << '=' << folder << '\n';
}

int random(const RandomOptions& options) {
  const config::Resolved resolved = config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  const Graph graph = build_epalm(epalm_config(resolved.config), DType::kF32, {1, 2, false});
  write_part("vision", vision_weights(graph), graph, resolved.config, options);
  write_part("text", text_weights(graph), graph, resolved.config, options);
  return 0;
}

void add_random(CommandLine& program, CLI::App& weights) {
  CLI::App* command = weights.add_subcommand(
      "random", "Writes seeded random weights for the backbones of a configuration, under their published names");
  auto options = std::make_shared<RandomOptions>();
  add_config_options(*command, options->config);
  command->add_option("--out", options->out, "Folder; gets vision/ and text/ (no default)")->required()->type_name("FOLDER");
  command->add_option("--dtype", options->dtype, "f32, bf16 or f16")->capture_default_str();
  command->add_option("--shard-gb", options->shard_gb, "Largest file in GB (10^9 bytes) of tensor data")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1e6));
  command->callback([&program, options] { program.action = [options] { return random(*options); }; });
}

void add_inspect(CommandLine& program, CLI::App& weights) {
  CLI::App* command = weights.add_subcommand("inspect", "Lists what weight files hold: names, dtypes, shapes, bytes, metadata");
  auto options = std::make_shared<InspectOptions>();
  command->add_option("file", options->path, "A .safetensors file, an index of several, or a folder with either")->required()->type_name("PATH");
  command->add_flag("--json", options->json, "JSON instead of a table");
  command->callback([&program, options] {
    program.action = [options] {
      const WeightSource source = WeightSource::open(options->path);
      std::cout << (options->json ? inspect_json(source) + "\n" : inspect_text(source));
      return 0;
    };
  });
}

}  // namespace

void add_weights_command(CommandLine& program) {
  CLI::App* weights = program.app.add_subcommand("weights", "Looks at weight files and makes random ones");
  weights->require_subcommand(1);
  add_inspect(program, *weights);
  add_random(program, *weights);
}

}  // namespace permafrost
