#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/demo/generate.h"
#include "launch/bench/bench_kernels.h"
#include "launch/bench/comm_plan.h"
#include "launch/env.h"

namespace permafrost {

// One struct of options and one function per command. command_line.cc fills the structs, and says what each option
// means; the functions return the exit code.

/// Positional CONFIG and repeated --set.
struct ConfigOptions {
  std::string path;
  std::vector<std::string> overrides;
};

struct TrainOptions {
  ConfigOptions config;
  std::string run_dir;
  bool resume = false;
  std::string init_from;
  std::string trace, trace_steps;  ///< as TraceOptions has them
};
int run_train(const TrainOptions& options, const Launcher& launcher);

struct PlanOptions {
  ConfigOptions config;
  int ranks = 1;
  int nodes = 1;
  int threads = 1;
  int cores_per_node = 0;
  double memory_gib = 0;
  std::string device;  ///< name of a DeviceSpec: a plan for that GPU, with a forecast of time; empty: none
  std::string ceilings;
  std::string collectives = "nccl";
  double nic_gbps = 0;
  double launch_us = 2.5;
  bool tf32 = false;
  bool json = false;
};
int run_plan(const PlanOptions& options);

struct ProbeOptions {
  ConfigOptions config;
  std::string batch, out;
  std::vector<std::string> values;
  bool grads = false;
  bool list = false;
};
int run_probe(const ProbeOptions& options);

/// Without a CONFIG: scores of existing result files. With one: of a model.
struct EvalOptions {
  ConfigOptions config;  ///< path empty: none
  std::string results, annotations, split;
  std::string adapter;  ///< with a CONFIG: file or checkpoint, instead of weights.adapter
  std::string out;      ///< with a CONFIG: folder for results.json and scores.json
  std::string sheet;    ///< with a CONFIG: PNG file of images with the texts
  int64_t sheet_count = 24;
  int64_t samples = 0;  ///< with a CONFIG: texts to print
  std::vector<std::string> metrics;
  bool partial = false;
  bool json = false;
};
int run_eval(const EvalOptions& options, const Launcher& launcher);
int run_eval_model(const EvalOptions& options, const Launcher& launcher);

struct GenerateOptions {
  ConfigOptions config;
  std::string image;  ///< a photograph, a folder of them, or a text file that lists them
  std::string question, adapter, json;
};
int run_generate(const GenerateOptions& options, const Launcher& launcher);

struct WeightsInspectOptions {
  std::string path;
  bool json = false;
};
int run_weights_inspect(const WeightsInspectOptions& options);

struct WeightsRandomOptions {
  ConfigOptions config;
  std::string out;
  std::string dtype = "f16";
  double shard_gb = 5;
};
int run_weights_random(const WeightsRandomOptions& options);

struct WeightsImportOptions {
  std::string from, to;
  std::string as;
  std::string dtype = "keep";
};
int run_weights_import(const WeightsImportOptions& options);

struct WeightsExportOptions {
  std::string from, to;
  std::string as;
  std::string dtype = "keep";
  std::string tokenizer;
  int heads = 0;
};
int run_weights_export(const WeightsExportOptions& options);

struct InfoOptions {
  bool json = false;
};
int run_info(const InfoOptions& options, const Launcher& launcher);

struct DataInspectOptions {
  ConfigOptions config;
  int64_t index = 0;
  uint32_t epoch = 0;
  std::string out;
};
int run_data_inspect(const DataInspectOptions& options);

struct DataPackOptions {
  ConfigOptions config;
  std::string out;
  double shard_mb = 256;
  bool evaluation = false;
};
int run_data_pack(const DataPackOptions& options, const Launcher& launcher);

struct SamplePhotosOptions {
  std::string folder;
  int count = 96;
  int size_pixels = 64;
  uint64_t seed = 42;
};
int run_sample_photos(const SamplePhotosOptions& options);

struct DataDemoOptions {
  std::string folder;
  DemoOptions demo;
  std::string format = "shards";
};
int run_data_demo(const DataDemoOptions& options);

struct ByteTokenizerOptions {
  std::string folder;
};
int run_byte_tokenizer(const ByteTokenizerOptions& options);

struct BenchOptions {
  BenchKernelsOptions bench;
  int threads = 0;
  std::string device = "cpu";
};
int run_bench_kernels(const BenchOptions& options);
int run_bench_comm(const BenchCommOptions& options, const Launcher& launcher);

struct BenchMemoryOptions {
  ConfigOptions config;
  int steps = 3;
  std::string json;
};
int run_bench_memory(const BenchMemoryOptions& options, const Launcher& launcher);

struct BenchStepOptions {
  ConfigOptions config;
  int64_t warmup = 3;
  int64_t steps = 20;
  std::string json;
  bool profile = false;
  bool control = false;            ///< commands come from standard input
  std::string trace, trace_steps;  ///< as TraceOptions has them
};
int run_bench_step(const BenchStepOptions& options, const Launcher& launcher);

}  // namespace permafrost
