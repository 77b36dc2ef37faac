#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/device/context.h"
#include "parallel/plan/compute_copies.h"
#include "parallel/plan/plan.h"
#include "parallel/run/device_copies.h"
#include "parallel/run/executor_observer.h"
#include "parallel/run/step_memory.h"
#include "parallel/run/weight_slots.h"
#include "parallel/run/work_graphs.h"

namespace permafrost {

/// Takes each finished parameter gradient of a micro-batch: order-free sums in training, tests otherwise.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  /// gradient: f32 of the parameter's shape, on the executor's device, valid for what is given to its stream during the
  /// call.
  virtual void add(int param, const Tensor& gradient) = 0;
  /// On CUDA: a number such that whenever it is the same, `add` gives the stream the same work; negative: never twice.
  virtual int same_work() const { return -1; }
};

/// Where a non-finite number appeared first.
struct NonFiniteReport {
  std::string value;  ///< name of the value or gradient
  std::string unit;
  int64_t index = 0;  ///< flat index of the first bad element
  double number = 0;
};

struct ExecutorOptions {
  /// On CUDA: programs are captured behind their first run, and launched as graphs from their second on: one for all of
  /// a program, or one for what stands between two points where its gathers need the host.
  bool graphs = true;
  /// Fills every buffer and slot with NaN bytes when its life ends, so that reading too late shows.
  bool poison_released = false;
};

/// Walks the programs of a plan. All tensors are bound when it is made; running allocates nothing.
/// When sharded weights are gathered between nodes (GatherKind::kCollective), every call of `run` needs one of `run` or
/// `only_gather` on every other rank.
class Executor {
 public:
  /// `plan` and `memory` must outlive the executor. context: of the memory's device; on CUDA with a stream.
  /// gather_group: as WeightSlots takes it.
  Executor(const Plan& plan, const StepMemory& memory, const Context& context, const ExecutorOptions& options = {},
           Group* gather_group = nullptr);

  /// One micro-batch: forward, backward, gradients to `sink` (may be null when nothing is summed). The inputs of
  /// `bucket` must have been written. Returns the loss (0 without one), when all is done. Errors: kInvalidArgument for
  /// inputs that a kernel refuses.
  double run(size_t bucket, GradientSink* sink);

  /// The same on inputs that went over by upload_inputs, without waiting on CUDA: `loss` (may be null; pinned memory)
  /// is there, and what kernels refuse is said, when the context's stream has been waited for. The host's inputs may be
  /// written again behind wait_for_inputs().
  void start(size_t bucket, GradientSink* sink, double* loss);
  void wait_for_inputs() const { inputs_.wait(); }
  /// The host's inputs are those of the next program, of this bucket: they go over while another one may run.
  void upload_inputs(size_t bucket) { inputs_.start(plan_.programs[bucket].input_bytes); }

  /// The loss alone: the same program up to the operation that gives it, whose inputs (logits) stay readable until the
  /// next run. Needs a loss; counts as a run for what is gathered.
  double forward(size_t bucket);

  /// For a rank without a micro-batch while others have one: takes part in what they gather, and computes nothing.
  /// bucket: of a plan in lockstep, the one that the others run; any other plan gathers the same in all.
  void only_gather(size_t bucket = 0);

  /// Since the last call: milliseconds that computing waited for sharded weights, and bytes gathered from other ranks.
  double take_gather_ms() { return slots_.take_waited_ms(); }
  /// Graphs launched so far, and in words (constants) why there are none; "" when there are, and on CPU.
  int64_t graph_launches() const { return graphs_.launches(); }
  std::string_view why_no_graphs() const;
  /// Whether a program of this bucket is several of them, since ranks gather what it needs from each other.
  bool graphs_between_gathers(size_t bucket) const;
  /// From the next program on; returns what was before.
  void forget_graphs() { graphs_.forget(); }
  bool use_graphs(bool use) { return std::exchange(options_.graphs, use); }
  int64_t take_gathered_bytes() { return slots_.take_gathered_bytes(); }

  /// Runs again, stopping at the first value or gradient that is not finite; for diagnosis after a bad step.
  std::optional<NonFiniteReport> find_non_finite(size_t bucket);

  /// Tensors by public name, in host memory; undefined when the program has no such value. Contents of computed values
  /// are valid after `run` only if the plan keeps them. On CUDA inputs are where the next run takes them from, and all
  /// else is a copy made by this call, valid until the next one for the same tensor.
  Tensor value(size_t bucket, std::string_view name) const;
  Tensor value_gradient(size_t bucket, std::string_view name) const;
  Tensor param_gradient(size_t bucket, std::string_view name) const;

  const Context& context() const { return context_; }

  /// From the next program on; null: nobody. Must outlive what it sees. One that is absent costs a comparison per step.
  /// Returns who saw it before.
  ExecutorObserver* observe(ExecutorObserver* observer) {
    slots_.observe(observer);
    return std::exchange(observer_, observer);
  }

 private:
  struct BoundStep {
    const PlanStep* plan = nullptr;
    const Op* op = nullptr;
    std::vector<Tensor> inputs, params, outputs, saved, doutputs, dinputs, dparams, before_inputs;
    Tensor workspace;
    BitMask adjoining = 0;
    std::vector<Tensor> released;  // buffers whose life ends with this step
    std::vector<size_t> acquired;  // gathers that this step is the first to use
    std::vector<size_t> let_go;    // those that it is the last to use
  };
  /// Steps [first, end) of a program. Gathers that they need are acquired in front of them, and let go of behind them.
  struct Segment {
    size_t first = 0, end = 0;
  };
  void bind(size_t bucket);
  /// Before the first program: frozen parameters are where they belong by then.
  void fill_copies();
  Tensor copied(const ComputeCopies::Copy& copy) const;
  void bind_gathers(size_t bucket);
  /// Calls give(segment) for each segment in order, until it returns true.
  template <typename Give>
  void walk(size_t bucket, Give give);
  /// Executes its steps and calls after(step) behind each until it returns true, which is returned.
  template <typename After>
  bool give_steps(size_t bucket, const Segment& segment, GradientSink* sink, After after);
  void give_all(size_t bucket, GradientSink* sink);
  void give_graphs(size_t bucket, int work, GradientSink* sink);
  std::string name_of(const WorkGraphs::Key& key) const;
  void poison(const Gather& gather) const;
  void execute(const BoundStep& step, GradientSink* sink) const;
  bool on_cuda() const { return context_.device.kind == DeviceKind::kCuda; }
  void fill_with_nan(std::byte* memory, int64_t bytes) const;
  double loss(size_t bucket) const;
  Tensor on_host(const TensorRef& ref) const;
  Tensor host_copy(const Tensor& tensor, Buffer& staging) const;

  const Plan& plan_;
  const StepMemory& memory_;
  Context context_;
  ExecutorOptions options_;
  WeightSlots slots_;
  ComputeCopies copied_;
  Buffer copied_memory_;
  bool copies_are_filled_ = false;
  std::vector<std::vector<BoundStep>> steps_;  // per bucket
  std::vector<std::vector<Segment>> segments_;
  std::vector<Tensor> losses_;  // per bucket
  InputUploads inputs_;
  WorkGraphs graphs_;
  mutable Buffer staging_;                                                 // on CUDA: for the loss
  mutable std::map<std::tuple<Region, int64_t, int64_t>, Buffer> copies_;  // on CUDA: of values asked for
  ExecutorObserver* observer_ = nullptr;
};

}  // namespace permafrost
