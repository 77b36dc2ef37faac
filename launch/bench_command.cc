#include <iostream>

#include "launch/bench/bench_kernels.h"
#include "launch/command.h"

namespace permafrost {

void add_bench_command(CommandLine& program) {
  CLI::App* bench = program.app.add_subcommand("bench", "Measures this machine");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand("kernels", "Every linear layer of ViT-B/16 and OPT-125M against oneDNN, memory-bound kernels against a copy");
  struct Options {
    BenchKernelsOptions bench;
    RuntimeOptions runtime;
  };
  auto options = std::make_shared<Options>();
  command->add_option("--json", options->bench.json_path, "Also write the results to this file, one JSON object per line (default: none)")->type_name("FILE");
  command->add_option("--only", options->bench.only, "Only rows whose name contains this, such as 'bf16 vit_b16 fc1' (default: all)")->type_name("TEXT");
  command->add_option("--threads", options->runtime.threads, "Threads of both sides; 0: all usable cores")->capture_default_str()->check(CLI::Range(0, 1024));
  command->add_flag("--quick", options->bench.quick, "5 samples a row instead of 20 or more");
  command->callback([&program, options] {
    program.action = [options] {
      return run_ranks({}, options->runtime, [&](Runtime& runtime) { bench_kernels(options->bench, runtime.pool, std::cout); });
    };
  });
}

}  // namespace permafrost
