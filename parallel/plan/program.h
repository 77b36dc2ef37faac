#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/graph/graph.h"
#include "core/graph/needs.h"
#include "parallel/plan/gather_schedule.h"

namespace permafrost {

/// Which block of memory a tensor lives in. Every region is one allocation made before the first step.
enum class Region : uint8_t {
  kNone,     ///< undefined tensor
  kArena,    ///< activations, gradients, workspaces; addresses shared over time
  kInputs,   ///< plan inputs, filled before each micro-batch
  kState,    ///< state values
  kFrozen,   ///< the frozen space: parameters that are on the node as a whole, read-only
  kSlots,    ///< two places into which sharded units are gathered
  kWorking,  ///< working copies of trainable parameters
};

/// A planned tensor: where, and what it looks like there.
struct TensorRef {
  Region region = Region::kNone;
  int64_t offset = 0;
  TensorSpec spec;
  int buffer = -1;  ///< index into Program::buffers, for Region::kArena
};

enum class BufferKind : uint8_t { kActivation, kSaved, kGradient, kParamGradient, kWorkspace };
std::string_view to_string(BufferKind kind);

/// One piece of the arena with its life: from the step that writes it first to the step that uses it last.
struct PlannedBuffer {
  std::string name;
  BufferKind kind = BufferKind::kActivation;
  int64_t bytes = 0;  ///< rounded up to kArenaAlignment
  int64_t offset = 0;
  int first_step = 0, last_step = 0;
};

enum class StepKind : uint8_t {
  kForward,       ///< op.forward
  kBackward,      ///< op.backward
  kAddGradient,   ///< dinputs[0] += doutputs[0]: a gradient that its operation could only overwrite
  kCopyGradient,  ///< dinputs[0] = doutputs[0]: a kept gradient, for an operation whose backward destroys what it reads
  kSumGradient,   ///< the finished f32 gradient dparams[0] of `param` joins the order-free sums
};

struct PlanStep {
  StepKind kind = StepKind::kForward;
  int op = -1;
  /// kForward: an operation that is computed along with this one and has no step of its own (Op::takes_along), or -1.
  /// What it reads is `before_inputs`; what it makes is inputs[0], which this step writes before it reads it.
  int before = -1;
  int param = -1;  ///< kSumGradient
  /// The unit of `op`. All that the step does is counted there, by plan and forecast: what comes along as well,
  /// whatever unit `before` is of (its backward pass is a step of its own).
  int unit = -1;
  std::vector<TensorRef> inputs, params, outputs, saved, doutputs, dinputs, dparams, before_inputs;
  std::vector<GradMode> dinput_modes, dparam_modes;
  TensorRef workspace;
};

/// Parameters of a step that the plan puts right behind the one before: bit i says that parameter i begins where
/// parameter i - 1 ends, in one region, one unit and one dtype. Two units may touch as well, in the frozen space or
/// from slot to slot, but where each lies in memory depends on policies; within a unit it never does.
BitMask adjoining_params(const Graph& graph, const PlanStep& step);

/// Everything one micro-batch does, in order, with addresses. Executed once per micro-batch slot of a rank.
struct Program {
  std::vector<PlanStep> steps;
  std::vector<PlannedBuffer> buffers;
  std::vector<Gather> gathers;             ///< in the order in which they begin; none when nothing is gathered
  std::vector<TensorRef> values;           ///< per graph value: where it is; kNone when pruned
  std::vector<TensorRef> value_gradients;  ///< per graph value; kNone when not needed
  std::vector<TensorRef> param_gradients;  ///< per parameter; kNone when frozen
  int64_t arena_bytes = 0;                 ///< what the arena must have
  int64_t peak_live_bytes = 0;             ///< the largest sum of simultaneously live buffers: no arena can be smaller
  int64_t input_bytes = 0, state_bytes = 0;
};

constexpr int64_t kArenaAlignment = 64;

/// Where parameters live; the same for all programs of a plan.
struct ParamPlacement {
  Region region = Region::kFrozen;
  int64_t offset = 0;
  TensorSpec stored;
};

struct ProgramOptions {
  Workers workers;               ///< workspaces are sized for them
  bool reuse_memory = true;      ///< false: every buffer has an address of its own
  bool keep_all_values = false;  ///< values with public names stay readable after the program (probing)
  bool keep_gradients = false;   ///< so do their gradients and those of parameters; no kSumGradient then
  bool forward_only = false;
};

/// Inputs, states and values that were given a name, as opposed to "scope.kind_17".
bool is_public(const Graph& graph, int value);

Program build_program(const Graph& graph, const NeedAnalysis& needs, const std::vector<ParamPlacement>& placements,
                      const ProgramOptions& options);

}  // namespace permafrost
