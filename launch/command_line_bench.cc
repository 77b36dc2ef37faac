// The commands that measure, with their options: see command_line.cc.
#include "launch/command_line_parts.h"

namespace permafrost {

void add_config_options(CLI::App& command, ConfigOptions& options, bool required) {
  command.add_option("config", options.path, "Configuration: a file in protobuf text, such as configs/*.textproto")
      ->required(required)
      ->type_name("CONFIG");
  command
      .add_option(
          "--set", options.overrides,
          "Overrides one field: path.to.field=value, or += to append to a list; may be repeated (default: none)")
      ->type_name("PATH=VALUE")
      ->expected(1)
      ->take_all();
}

CLI::Option* add_trace_options(CLI::App& command, std::string& file, std::string& steps, const char* usual) {
  CLI::Option* trace = command
                           .add_option("--trace", file,
                                       "Write what some steps did when, on all ranks, to this JSON file for Perfetto "
                                       "(docs/gpu.md; default: none)")
                           ->type_name("FILE");
  command
      .add_option("--trace-steps", steps,
                  std::string("Steps to trace, from A up to and without B, counted from 0 (default: ") + usual + ")")
      ->needs(trace)
      ->type_name("A:B");
  return trace;
}

namespace {

void add_bench_memory(CommandLine& line, CLI::App& bench, const Launcher& launcher) {
  CLI::App* command = bench.add_subcommand(
      "memory", "Trains a few steps and sets the memory of each category beside its forecast; any number of ranks");
  auto options = std::make_shared<BenchMemoryOptions>();
  add_config_options(*command, options->config);
  command->add_option("--steps", options->steps, "Steps before the steady state is looked at, at most train.max_steps")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_option("--json", options->json, "Writes the figures to this file too (keys: docs/benchmarks/memory.md)");
  command->callback([=, &line] { line.action = [=] { return run_bench_memory(*options, launcher); }; });
}

void add_bench_step(CommandLine& line, CLI::App& bench, const Launcher& launcher) {
  CLI::App* command = bench.add_subcommand(
      "step",
      "Times training steps: the same work as `train`, without a run directory; alone or as one rank under mpirun");
  auto options = std::make_shared<BenchStepOptions>();
  add_config_options(*command, options->config);
  CLI::Option* warmup = command->add_option("--warmup", options->warmup, "Steps before those that are timed")
                            ->capture_default_str()
                            ->check(CLI::Range(0, 1'000'000));
  CLI::Option* steps =
      command->add_option("--steps", options->steps, "Steps that are timed; with --warmup at most train.max_steps")
          ->capture_default_str()
          ->check(CLI::Range(1, 1'000'000));
  CLI::Option* json = command
                          ->add_option("--json", options->json,
                                       "Also write the figures to this file, one JSON object on one line (keys: "
                                       "docs/benchmarks/step.md; default: none)")
                          ->type_name("FILE");
  CLI::Option* profile = command->add_flag(
      "--profile", options->profile,
      "Time every operation of the timed steps, and what passes between them: on a GPU by its own clock, "
      "operation by operation, without CUDA graphs");
  CLI::Option* trace =
      add_trace_options(*command, options->trace, options->trace_steps, "the first ten that are timed");
  command
      ->add_flag("--control", options->control,
                 "Instead, read lines from standard input: run N, memory, checkpoint, quit; each is answered with a "
                 "line of JSON, and ranks sleep meanwhile")
      ->excludes(warmup)
      ->excludes(steps)
      ->excludes(json)
      ->excludes(profile)
      ->excludes(trace);
  command->callback([=, &line] { line.action = [=] { return run_bench_step(*options, launcher); }; });
}

void add_bench_kernels(CommandLine& line, CLI::App& bench) {
  CLI::App* command = bench.add_subcommand(
      "kernels",
      "Every linear layer of ViT-B/16 and OPT-125M against oneDNN, memory-bound kernels against a copy; on a GPU every "
      "call of larger workloads against what it reaches at most");
  auto options = std::make_shared<BenchOptions>();
  command->add_option("--device", options->device, "cpu or cuda")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command
      ->add_option("--json", options->bench.json_path,
                   "Also write the results to this file, one JSON object per line (default: none)")
      ->type_name("FILE");
  command
      ->add_option(
          "--only", options->bench.only,
          "Only rows whose name contains this, such as 'bf16 vit_b16 fc1', or 'e4 text fc1' on a GPU (default: all)")
      ->type_name("TEXT");
  command->add_option("--threads", options->threads, "Threads of both sides, on a CPU; 0: all usable cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  command->add_flag("--quick", options->bench.quick, "5 samples a row instead of 20 or more");
  command->callback([=, &line] { line.action = [=] { return run_bench_kernels(*options); }; });
}

void add_bench_comm(CommandLine& line, CLI::App& bench, const Launcher& launcher) {
  CLI::App* command = bench.add_subcommand(
      "comm",
      "Collectives of every backend beside the MPI library's own, results checked; alone or as one rank under mpirun");
  auto options = std::make_shared<BenchCommOptions>();
  command
      ->add_option("--json", options->json_path,
                   "Also write the results to this file, one JSON object per line (keys: "
                   "docs/benchmarks/communication.md; default: none)")
      ->type_name("FILE");
  command->add_option("--min-bytes", options->min_bytes, "Smallest size in bytes, of the large f32 buffer of each rank")
      ->capture_default_str();
  command
      ->add_option("--max-bytes", options->max_bytes,
                   "Largest size in bytes; a rank takes about ten times as much memory")
      ->capture_default_str();
  command->add_option("--factor", options->factor, "From one size to the next")->capture_default_str();
  command
      ->add_option("--only", options->only,
                   "Only rows whose operation and variant contain this, such as 'all_gather' or 'order_free node' "
                   "(default: all)")
      ->type_name("PATTERN");
  command
      ->add_option("--rounds", options->rounds, "Rounds in which the variants take turns; small calls repeat in each")
      ->capture_default_str();
  command->add_flag("--uneven", options->uneven, "Parts in proportion to rank + 1 instead of equal ones");
  command->callback([=, &line] { line.action = [=] { return run_bench_comm(*options, launcher); }; });
}

}  // namespace

void add_benches(CommandLine& line, CLI::App& bench, const Launcher& launcher) {
  add_bench_kernels(line, bench);
  add_bench_comm(line, bench, launcher);
  add_bench_memory(line, bench, launcher);
  add_bench_step(line, bench, launcher);
}

}  // namespace permafrost
