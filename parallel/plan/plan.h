#pragma once
#include <array>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/graph/freezing.h"
#include "core/graph/graph.h"
#include "core/graph/needs.h"
#include "parallel/plan/gpu_memory.h"
#include "parallel/plan/policies.h"
#include "parallel/plan/program.h"
#include "parallel/shard/frozen_layout.h"
#include "parallel/shard/shard_spec.h"
#include "parallel/shard/world.h"

namespace permafrost {

enum class Reduction : uint8_t {
  kOrderFree,  ///< int64 sums: the same bits for any number of ranks
  kPlain,      ///< f32 sums in rank order: control runs only
};

/// Everything a plan is a function of.
struct PlanRequest {
  /// Builds the graph of one micro-batch whose text is `tokens` long. Same parameters, in the same order, every time.
  std::function<Graph(int64_t tokens)> build_graph;
  std::vector<int64_t> buckets;  ///< text lengths, ascending, at least one
  std::vector<FreezeRule> freezing;
  bool allow_all_frozen = false;
  /// All ranks run the same program at the same time: then programs may gather different units, and what is said of a
  /// micro-batch is of one run of each program. Otherwise a micro-batch is a run of one of them, ranks may be in
  /// different ones, and all must gather alike.
  bool lockstep = false;
  /// Storage dtype of frozen matrices (rank 2); vectors are f32, other ranks have the compute dtype.
  std::function<DType(const ParamInfo&)> frozen_dtype;
  World world;
  int64_t micro_batches = 1;      ///< per step, over all ranks (G)
  int64_t prefetched_inputs = 0;  ///< micro-batches the loader keeps ready beside the one in use
  Reduction reduction = Reduction::kOrderFree;
  std::vector<PolicyRule> policies;                  ///< by unit name, first match wins
  PolicyChoice frozen_policy = PolicyChoice::kAuto;  ///< of units that no rule matches
  GatherChoice gather = GatherChoice::kAuto;
  int64_t node_memory_bytes = 0;  ///< what a node may use, for kAuto; 0: everything is taken to fit
  int64_t process_bytes = 0;      ///< what a rank needs beside the plan
  /// What a rank may use of its GPU, for kAuto; 0: everything is taken to fit.
  int64_t device_memory_bytes = 0;
  bool device_collectives = false;  ///< GPUs exchange without passing through the host's memory
  ProgramOptions options;           ///< workers are those of the world
};

/// Elements by which the trainable space is divided: norms are summed and optimizer slices cut at such blocks.
constexpr int64_t kTrainableBlock = ShardSpec::kBlock;
/// Parameters start at multiples of this in the trainable space, so that working copies are 64-byte aligned.
constexpr int64_t kTrainableAlignment = 32;

struct ParamPlan {
  std::string name;
  Shape shape;
  Initializer initializer;
  bool trainable = false;
  int unit = -1;
  int64_t trainable_offset = -1;  ///< element offset in the trainable space; -1 when frozen
  ParamPlacement placement;
};

struct UnitPlan {
  std::string name;
  FreezeClass freeze_class = FreezeClass::kPrefix;
  Policy policy = Policy::kResident;
  std::string policy_reason;
  bool behind_frontier = false;
  std::string frontier_reason;
  int64_t params = 0, trainable_params = 0;
  int64_t weight_bytes = 0;                      ///< frozen and working copies as stored
  int64_t saved_bytes = 0;                       ///< kept from forward for backward, largest bucket
  int64_t gradient_bytes = 0;                    ///< f32 parameter gradients of a micro-batch
  int64_t optimizer_bytes = 0;                   ///< master, m, v over all ranks
  int64_t gathers = 0, reductions = 0;           ///< per rank and step that this unit causes
  double flops_forward = 0, flops_backward = 0;  ///< of its steps (PlanStep::unit); one micro-batch, largest bucket
};

/// Bytes of one rank (the one with the largest slice, on the node with most ranks): all of it the host's in a plan for
/// CPU. In one for a GPU sizes alone; where they lie say DeviceMemoryPlan and HostMemoryPlan.
struct MemoryPlan {
  int64_t node_frozen = 0;  ///< frozen parameters as stored, on a node: its ranks share them
  int64_t frozen = 0;       ///< this rank's share of them
  int64_t slots = 0;        ///< two places for sharded units
  int64_t working = 0;      ///< working copies of trainables
  int64_t optimizer = 0;    ///< f32 master, m, v of this rank's slice
  int64_t sums = 0;         ///< order-free int64 sums of all trainables
  int64_t gradients = 0;    ///< reduced f32 gradient of this rank's slice
  int64_t arena = 0;        ///< activations, gradients, workspaces
  int64_t inputs = 0;       ///< the micro-batch in use and those prefetched
  int64_t state = 0;
  int64_t own() const { return slots + working + optimizer + sums + gradients + arena + inputs + state; }
  int64_t total() const { return frozen + own(); }
  /// Of a node with `ranks` ranks.
  int64_t node(int64_t ranks) const { return node_frozen + ranks * own(); }
};

/// Bytes of one rank and step: all but its own part of everything (moved_bytes of parallel/group/group.h). Nothing for
/// a world of one.
struct TrafficPlan {
  int64_t gathered_frozen = 0;
  int64_t reduced_gradients = 0;
  int64_t gathered_working = 0;
  int64_t gathered_norms = 0;
  int64_t vote = 0;
  int64_t total() const { return gathered_frozen + reduced_gradients + gathered_working + gathered_norms + vote; }
  /// What the rank reads of others' memory or receives: as above, but of a reduction not what it gives away but what
  /// comes in (docs/parallelism.md).
  int64_t moved = 0;
};

/// What happens in a step outside the micro-batches, in order.
enum class PhaseKind : uint8_t { kMicroBatches, kVote, kReduceGradients, kGatherNorms, kOptimizer, kGatherWorking };
constexpr size_t kPhaseKinds = 6;
std::string_view to_string(PhaseKind kind);

/// The static answer to "what will happen, where, and what does it cost". Equal on all ranks.
class Plan {
 public:
  World world;
  int64_t micro_batches = 1;
  int64_t slots = 1;  ///< micro-batches each rank computes per step: ceil(G / N)
  Reduction reduction = Reduction::kOrderFree;
  DType compute = DType::kF32;
  std::vector<int64_t> buckets;
  std::vector<Graph> graphs;        ///< per bucket
  std::vector<NeedAnalysis> needs;  ///< per bucket
  std::vector<Program> programs;    ///< per bucket
  bool lockstep = false;            ///< as asked for
  std::vector<ParamPlan> params;
  std::vector<UnitPlan> units;
  std::vector<PhaseKind> phases;
  std::vector<FrozenUnit> frozen_units;  ///< per unit: its range of the frozen space (ParamPlacement::offset)
  GatherMethod gather;                   ///< of sharded units
  /// Bytes of each slot: the largest unit that is gathered into it; 0 when none is.
  std::array<int64_t, kGatherSlots> slot_bytes{};
  MemoryPlan memory;
  DeviceMemoryPlan device_memory;
  HostMemoryPlan host_memory;
  bool device_collectives = false;  ///< as asked for
  TrafficPlan traffic;              ///< of the rank with the largest total
  int64_t total_params = 0, trainable_params = 0;
  int64_t trainable_space = 0;  ///< elements of the trainable space, padding included

  /// Index of the smallest bucket that holds `tokens`; throws kInvalidArgument when none does.
  size_t bucket_for(int64_t tokens) const;
  /// Elements [begin, end) of the trainable space that `rank` owns. Multiples of kTrainableBlock, except the last end.
  std::pair<int64_t, int64_t> slice(int rank) const;
  /// Byte range of the working region that holds elements [begin, end) of the trainable space.
  int64_t working_byte(int64_t element) const;
  /// Where a slot begins in Region::kSlots.
  int64_t slot_begin(int slot) const {
    return std::accumulate(slot_bytes.begin(), slot_bytes.begin() + slot, int64_t{0});
  }
  /// What the ranks of the fullest node need of its memory, without what processes need beside the plan.
  int64_t host_bytes_of_node() const {
    const int64_t most = world.most_ranks_of_a_node();
    return world.device == DeviceKind::kCuda ? host_memory.node(most) : memory.node(most);
  }
  int64_t host_bytes_of_rank() const {
    return world.device == DeviceKind::kCuda ? memory.frozen + host_memory.own() : memory.total();
  }
  /// Where the frozen parameters lie on the node of `rank`.
  FrozenLayout frozen_layout(int rank) const { return {frozen_units, world, rank}; }
  TrafficPlan traffic_of(int rank) const;
  /// Whose gathers a micro-batch causes: with lockstep all, else the last one, as good as any.
  std::span<const Program> gathering_programs() const {
    return std::span(programs).last(lockstep ? programs.size() : 1);
  }
  /// How many of a step's micro-batches `rank` computes.
  int64_t micro_batches_of(int rank) const;
  /// Of one run of a bucket's program, forward and backward.
  double program_flops(size_t bucket) const;
  /// Of a micro-batch in the largest bucket.
  double flops_forward() const;
  double flops_backward() const;

  /// SHA-256 over the schedule, all addresses, all parameters, the operations with their constants, and the phases.
  std::string hash() const;
  /// SHA-256 over what is computed, whatever the world: compute dtype, parameters with shapes and freezing, operations
  /// with their constants and operands. Checkpoints carry it.
  std::string graph_hash() const;
  /// SHA-256 over what all ranks must agree on to work together: what graph_hash covers, the world, policies, gathers
  /// and reductions. Threads and addresses may differ by machine.
  std::string schedule_hash() const;
  /// One line per unit, then totals and the frontier in words.
  std::string table() const;
  /// The same as JSON; keys are documented in docs/plan.md.
  std::string json() const;
};

/// Errors: kConfig (freezing, buckets), kShapeMismatch from building the graph.
Plan make_plan(const PlanRequest& request);

}  // namespace permafrost
