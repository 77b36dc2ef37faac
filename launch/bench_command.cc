#include <array>
#include <iostream>
#include <memory>

#include "core/device/buffer.h"
#include "core/device/cpu_features.h"
#include "generated_version.h"
#include "launch/about_run.h"
#include "launch/bench/bench_comm.h"
#include "launch/bench/bench_gpu.h"
#include "launch/bench/bench_kernels.h"
#include "launch/commands.h"
#include "launch/gpu.h"
#include "launch/machine.h"
#include "launch/runtime.h"
#include "parallel/group/node/free_memory.h"
#include "parallel/group/node/node_group.h"

namespace permafrost {

namespace {

constexpr const char *kRegistered = "node_registered", *kOrdinary = "node_ordinary", *kOurMpi = "mpi",
                     *kPlainMpi = "plain_mpi";

/// What this run can compare: the node backend where all ranks share a machine, MPI where there is any.
std::vector<std::string> variant_names(const Runtime& runtime) {
  std::vector<std::string> names;
  if (runtime.place.nodes == 1) names = {kRegistered, kOrdinary};
  if (runtime.environment) names.insert(names.end(), {kOurMpi, kPlainMpi});
  return names;
}

/// Before any of it is taken; the tightest machine speaks for all.
void check_room(const Runtime& runtime, const BenchCommOptions& options, const bench::CommPlan& plan, int memories,
                bool plain_mpi) {
  const int64_t needed = bench::comm_bytes(plan, runtime.ranks_on_node(), memories, plain_mpi);
  std::array<int64_t, 2> room{free_memory_bytes(), -needed};
  const Tensor tensor = flat(std::span<int64_t>(room));
  runtime.world.all_reduce(tensor, tensor, ReduceOp::kMin, StreamView::caller(), "bench: memory").wait();
  bench::check_comm_room(-room[1], room[0], runtime.ranks_on_node(), options.max_bytes);
}

/// The groups and the memory of all variants of a run. Ordinary memory is shared by those that use it.
class CommSides {
 public:
  CommSides(Runtime& runtime, const BenchCommOptions& options)
      : names_(variant_names(runtime)), plan_(bench::plan_comm(options, runtime.size(), names_)) {
    const bool registered = uses(kRegistered), ordinary = uses(kOrdinary) || uses(kOurMpi) || uses(kPlainMpi);
    check_room(runtime, options, plan_, registered + ordinary, uses(kPlainMpi));
    const int64_t bytes = plan_.memory_bytes();
    if (ordinary) ordinary_ = Buffer("bench memory", bytes);
    if (registered) shared_ = runtime.node.allocate("bench memory", bytes * runtime.size());
    if (uses(kOurMpi)) mpi_ = runtime.environment->world().split(0, runtime.rank(), "bench mpi");
    if (uses(kPlainMpi)) plain_ = runtime.environment->plain();
    for (const std::string& name : names_) variants_.push_back(variant(name, runtime));
  }

  const bench::CommPlan& plan() const { return plan_; }
  const std::vector<CommVariant>& variants() const { return variants_; }

 private:
  bool uses(const char* name) const {
    for (size_t v = 0; v < names_.size(); ++v)
      if (names_[v] == name) return plan_.uses(v);
    return false;
  }

  CommVariant variant(const std::string& name, Runtime& runtime) {
    CommVariant made{name, nullptr, ordinary_.data(), name != kPlainMpi};
    if (!uses(name.c_str())) return made;
    if (name == kRegistered) made.memory = shared_.data() + runtime.rank() * plan_.memory_bytes();
    if (name == kRegistered || name == kOrdinary) made.group = &runtime.node;
    if (name == kOurMpi) made.group = mpi_.get();
    if (name == kPlainMpi) made.group = plain_.get();
    return made;
  }

  std::vector<std::string> names_;
  bench::CommPlan plan_;
  Buffer ordinary_;
  SharedMemory shared_;
  std::unique_ptr<Group> mpi_, plain_;
  std::vector<CommVariant> variants_;
};

void print_about(const Runtime& runtime) {
  std::cout << "# permafrost " << PERMAFROST_VERSION << " " << kCommit << ", " << processor_name() << ", "
            << usable_cores() << " cores, " << (runtime.mpi.empty() ? "no MPI" : runtime.mpi) << "\n";
  if (!runtime.environment)
    std::cout << "# alone: nothing to compare with; several ranks: launch/mpirun.sh -n N\n";
  else if (runtime.place.nodes > 1)
    std::cout << "# ranks on several machines: the node backend is left out\n";
}

}  // namespace

int run_bench_kernels(const BenchOptions& options) {
  if (options.device == "cuda") {
    // By itself, without ranks: what they would do is measured on one.
    const std::unique_ptr<Stream> stream = open_gpu(DeviceKind::kCuda);
    bench_gpu({options.bench.json_path, options.bench.only, options.bench.quick, false}, *stream, std::cout);
    return 0;
  }
  RuntimeOptions runtime_options;
  runtime_options.threads = options.threads;
  return run_ranks({}, runtime_options,
                   [&](Runtime& runtime) { bench_kernels(options.bench, runtime.pool, std::cout); });
}

int run_bench_comm(const BenchCommOptions& options, const Launcher& launcher) {
  return run_ranks(launcher, {}, [&](Runtime& runtime) {
    const CommSides sides(runtime, options);
    const CommBench setup{runtime.world, runtime.context(), sides.variants(), kPlainMpi, about_run(runtime)};
    if (runtime.first()) print_about(runtime);
    bench_comm(options, sides.plan(), setup, std::cout);
  });
}

}  // namespace permafrost
