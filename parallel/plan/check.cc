#include "parallel/plan/check.h"

#include <algorithm>
#include <map>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "parallel/plan/content_map.h"

namespace permafrost {

namespace {

constexpr int kNothing = ContentMap::kNothing;

class Replay {
 public:
  Replay(const Graph& graph, const NeedAnalysis& needs, const Program& program, const ProgramOptions& options)
      : graph_(graph),
        needs_(needs),
        program_(program),
        options_(options),
        arena_(program.arena_bytes),
        states_(program.state_bytes),
        value_content_(graph.values().size(), kNothing),
        gradient_content_(graph.values().size(), kNothing),
        gradient_parts_(graph.values().size(), 0),
        param_content_(graph.params().size(), kNothing),
        param_parts_(graph.params().size(), 0),
        param_sums_(graph.params().size(), 0),
        saved_content_(graph.ops().size()),
        running_(ops_with(StepKind::kForward)),
        going_back_(ops_with(StepKind::kBackward)),
        expected_parts_(parts(graph.values().size(), &OpInfo::inputs, &Needs::inputs)),
        expected_param_parts_(parts(graph.params().size(), &OpInfo::params, &Needs::params)) {}

  ProgramReport run() {
    begin();
    for (const PlanStep& step : program_.steps) {
      if (problems_.size() >= kMaxProblems) break;
      if (has_all_operands(step)) replay(step);
      ++step_;
    }
    if (problems_.empty()) end();
    return {std::move(problems_), arena_.peak_live_bytes()};
  }

 private:
  static constexpr size_t kMaxProblems = 20;

  template <typename... Args>
  void problem(const Args&... args) {
    if (problems_.size() < kMaxProblems) problems_.push_back(concat("step ", step_, ": ", args...));
  }

  const OpInfo& op(const PlanStep& step) const { return graph_.ops()[static_cast<size_t>(step.op)]; }
  const Needs& needs(const PlanStep& step) const { return needs_.op_needs[static_cast<size_t>(step.op)]; }
  const std::string& name(int value) const { return graph_.values()[static_cast<size_t>(value)].name; }
  TensorSpec gradient_spec(size_t v) const { return {graph_.values()[v].spec.shape, graph_.compute()}; }

  std::vector<bool> ops_with(StepKind kind) const {
    std::vector<bool> found(graph_.ops().size(), false);
    for (const PlanStep& step : program_.steps) {
      if (step.kind != kind) continue;
      found[static_cast<size_t>(step.op)] = true;
      if (step.before >= 0) found[static_cast<size_t>(step.before)] = true;
    }
    return found;
  }

  /// How many operations contribute to the gradient of each value, or of each parameter.
  std::vector<int> parts(size_t count, std::vector<int> OpInfo::*operands, BitMask Needs::*needed) const {
    std::vector<int> counts(count, 0);
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      const std::vector<int>& of_op = graph_.ops()[o].*operands;
      for (size_t i = 0; running_[o] && i < of_op.size(); ++i)
        if (has(needs_.op_needs[o].*needed, i)) ++counts[static_cast<size_t>(of_op[i])];
    }
    return counts;
  }

  void replay(const PlanStep& step) {
    switch (step.kind) {
      case StepKind::kForward:
        forward(step);
        break;
      case StepKind::kBackward:
        backward(step);
        break;
      case StepKind::kAddGradient:
        add_gradient(step);
        break;
      case StepKind::kCopyGradient:
        copy_gradient(step);
        break;
      case StepKind::kSumGradient:
        sum_gradient(step);
        break;
    }
  }

  size_t inputs_before(const PlanStep& step) const {
    return step.before < 0 ? 0 : graph_.ops()[static_cast<size_t>(step.before)].inputs.size();
  }

  bool has_all_operands(const PlanStep& step) {
    const OpInfo& info = op(step);
    const size_t inputs = info.inputs.size(), params = info.params.size(), outputs = info.outputs.size();
    bool all = false;
    switch (step.kind) {
      case StepKind::kForward:
        all = step.inputs.size() == inputs && step.params.size() == params &&
              step.outputs.size() == outputs + (info.state >= 0) && step.before_inputs.size() == inputs_before(step);
        break;
      case StepKind::kBackward:
        all = step.inputs.size() == inputs && step.params.size() == params && step.outputs.size() == outputs &&
              step.doutputs.size() == outputs && step.dinputs.size() == inputs && step.dinput_modes.size() == inputs &&
              step.dparams.size() == params && step.dparam_modes.size() == params;
        break;
      case StepKind::kAddGradient:
      case StepKind::kCopyGradient:
        all = step.doutputs.size() == 1 && step.dinputs.size() == 1;
        break;
      case StepKind::kSumGradient:
        all = step.dparams.size() == 1;
        break;
    }
    if (!all) problem(info.scope, " lacks operands or has too many");
    return all;
  }

  /// The memory a reference lies in that the replay follows; null for inputs and parameters, which nobody writes.
  ContentMap* memory(const TensorRef& ref) {
    return ref.region == Region::kArena ? &arena_ : ref.region == Region::kState ? &states_ : nullptr;
  }

  bool in_range(const TensorRef& ref, const ContentMap& memory, const std::string& what) {
    if (ref.offset >= 0 && ref.offset % kArenaAlignment == 0 && ref.offset + ref.spec.bytes() <= memory.bytes())
      return true;
    problem(what, " lies at ", ref.offset, " + ", ref.spec.bytes(), ", outside the ",
            ref.region == Region::kArena ? "arena" : "states", " of ", memory.bytes(), " or unaligned");
    return false;
  }

  void expect(const TensorRef& ref, int content, const std::string& what) {
    if (ref.region == Region::kNone) return problem(what, " has no place");
    ContentMap* const where = memory(ref);
    if (!where || !in_range(ref, *where, what)) return;
    int found = kNothing;
    if (content == kNothing) {
      problem(what, " is read before it was written");
    } else if (!where->read(ref.offset, ref.spec.bytes(), content, step_, found)) {
      problem(what, " is read, but its memory was overwritten",
              found == kNothing ? "" : " by " + contents_[static_cast<size_t>(found)]);
    }
  }

  void put(const TensorRef& ref, int content) {
    ContentMap* const where = memory(ref);
    if (where && in_range(ref, *where, contents_[static_cast<size_t>(content)]))
      where->write(ref.offset, ref.spec.bytes(), content, step_);
  }

  int write(const TensorRef& ref, const std::string& what) {
    contents_.push_back(what);
    const int content = narrow<int>(contents_.size()) - 1;
    put(ref, content);
    return content;
  }

  void same_spec(const TensorRef& ref, const TensorSpec& spec, const std::string& what) {
    if (ref.region != Region::kNone && !(ref.spec == spec))
      problem(what, " is planned as ", ref.spec, ", the graph says ", spec);
  }

  static bool same_memory(const TensorRef& a, const TensorRef& b) {
    return a.region == Region::kArena && b.region == Region::kArena && a.offset == b.offset &&
           a.spec.bytes() == b.spec.bytes();
  }

  /// Outputs must not destroy operands while these are read, unless the operation allows it.
  void disjoint(const TensorRef& written, const TensorRef& read, const std::string& what) {
    if (written.region != read.region || !memory(written)) return;
    const bool apart =
        written.offset + written.spec.bytes() <= read.offset || read.offset + read.spec.bytes() <= written.offset;
    if (!apart && written.spec.bytes() > 0 && read.spec.bytes() > 0)
      problem(what, " overlaps an operand of the same step");
  }

  /// States come from the micro-batch before.
  void begin() {
    for (size_t v = 0; v < graph_.values().size(); ++v)
      if (graph_.values()[v].role == ValueRole::kState)
        state_content_[{static_cast<int>(v), -1}] =
            write(program_.values[v], graph_.values()[v].name + " of the micro-batch before");
  }

  /// What an operation must find in a value: of a state, what the last writer before it in the graph left there.
  int content_for(int op, int value) const {
    if (graph_.values()[static_cast<size_t>(value)].role != ValueRole::kState)
      return value_content_[static_cast<size_t>(value)];
    int writer = op;
    while (--writer >= 0 && graph_.ops()[static_cast<size_t>(writer)].state != value) continue;
    const auto found = state_content_.find({value, writer});
    return found == state_content_.end() ? kNothing : found->second;
  }

  /// What an operation without a step of its own reads and makes, before the operation that takes it along.
  void forward_before(const PlanStep& step) {
    const OpInfo& info = graph_.ops()[static_cast<size_t>(step.before)];
    if (info.outputs.size() != 1 || info.outputs[0] != op(step).inputs[0] || !op(step).op->takes_along(*info.op))
      problem(op(step).scope, " (", op(step).op->kind(), ") cannot take along ", info.op->kind(), " in ", info.scope);
    const auto in_place = info.op->in_place_input();
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      const TensorRef& ref = step.before_inputs[i];
      same_spec(ref, graph_.values()[static_cast<size_t>(info.inputs[i])].spec, name(info.inputs[i]));
      expect(ref, content_for(step.before, info.inputs[i]), name(info.inputs[i]));
      if (!in_place || *in_place != i || !same_memory(step.inputs[0], ref))
        disjoint(step.inputs[0], ref, name(info.outputs[0]));
      for (const TensorRef& output : step.outputs)
        if (!same_memory(output, step.inputs[0])) disjoint(output, ref, name(op(step).outputs[0]));
    }
    value_content_[static_cast<size_t>(info.outputs[0])] = write(step.inputs[0], name(info.outputs[0]));
  }

  void forward(const PlanStep& step) {
    const OpInfo& info = op(step);
    if (step.before >= 0) forward_before(step);
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      const auto v = static_cast<size_t>(info.inputs[i]);
      same_spec(step.inputs[i], graph_.values()[v].spec, name(info.inputs[i]));
      expect(step.inputs[i], content_for(step.op, info.inputs[i]), name(info.inputs[i]));
    }
    std::vector<int> outputs = info.outputs;
    if (info.state >= 0) outputs.push_back(info.state);
    const auto in_place = info.op->in_place_input();
    for (size_t o = 0; o < outputs.size(); ++o) {
      same_spec(step.outputs[o], graph_.values()[static_cast<size_t>(outputs[o])].spec, name(outputs[o]));
      for (size_t i = 0; i < step.inputs.size(); ++i) {
        const bool allowed = o == 0 && in_place && *in_place == i && same_memory(step.outputs[0], step.inputs[i]);
        if (!allowed) disjoint(step.outputs[o], step.inputs[i], name(outputs[o]));
      }
    }
    use_workspace(step, Pass::kForward);
    for (size_t o = 0; o < outputs.size(); ++o) {
      const int content = write(step.outputs[o], name(outputs[o]));
      value_content_[static_cast<size_t>(outputs[o])] = content;
      if (outputs[o] == info.state) state_content_[{info.state, step.op}] = content;
    }
    auto& saved = saved_content_[static_cast<size_t>(step.op)];
    check_saved(step);
    for (size_t i = 0; i < step.saved.size(); ++i) saved.push_back(write(step.saved[i], saved_name(info, i)));
    // What was written by this very step must have survived its other writes.
    for (size_t o = 0; o < outputs.size(); ++o)
      expect(step.outputs[o], value_content_[static_cast<size_t>(outputs[o])], name(outputs[o]));
  }

  static std::string saved_name(const OpInfo& info, size_t i) {
    return "saved buffer " + std::to_string(i) + " of " + info.scope;
  }

  /// Saved buffers must be those the operation asks for; none when its backward pass never runs.
  void check_saved(const PlanStep& step) {
    const OpInfo& info = op(step);
    const std::vector<TensorSpec> wanted = going_back_[static_cast<size_t>(step.op)]
                                               ? info.op->saved(graph_.specs_of(info), needs(step))
                                               : std::vector<TensorSpec>();
    if (step.saved.size() != wanted.size())
      return problem(info.scope, " has ", step.saved.size(), " saved buffers, the operation asks for ", wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (step.saved[i].region != Region::kArena) problem(saved_name(info, i), " has no place in the arena");
      same_spec(step.saved[i], wanted[i], saved_name(info, i));
    }
  }

  /// A workspace must be as large as the operation asks for, apart from all operands. Its content is gone afterwards.
  void use_workspace(const PlanStep& step, Pass pass) {
    const OpInfo& info = op(step);
    const int64_t wanted = info.op->workspace_bytes(graph_.specs_of(info), pass, needs(step), options_.workers);
    const int64_t planned = step.workspace.region == Region::kArena ? step.workspace.spec.bytes() : 0;
    if (planned != wanted)
      problem("the workspace of ", info.scope, " (", info.op->kind(), ") has ", planned,
              " bytes, the operation asks for ", wanted);
    if (planned == 0) return;
    for (const auto* refs : {&step.inputs, &step.params, &step.outputs, &step.saved, &step.doutputs, &step.dinputs,
                             &step.dparams, &step.before_inputs})
      for (const TensorRef& ref : *refs) disjoint(step.workspace, ref, "workspace");
    write(step.workspace, "a workspace");
  }

  void backward(const PlanStep& step) {
    const OpInfo& info = op(step);
    const BackwardUse use = info.op->backward_use(needs(step));
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      if (!has(use.inputs, i)) continue;
      same_spec(step.inputs[i], graph_.values()[static_cast<size_t>(info.inputs[i])].spec, name(info.inputs[i]));
      expect(step.inputs[i], content_for(step.op, info.inputs[i]), name(info.inputs[i]));
    }
    for (size_t i = 0; i < info.outputs.size(); ++i) {
      if (!has(use.outputs, i)) continue;
      same_spec(step.outputs[i], graph_.values()[static_cast<size_t>(info.outputs[i])].spec, name(info.outputs[i]));
      expect(step.outputs[i], value_content_[static_cast<size_t>(info.outputs[i])], name(info.outputs[i]));
    }
    for (size_t i = 0; i < info.params.size(); ++i)
      if (has(use.params, i) && step.params[i].region == Region::kNone)
        problem(graph_.params()[static_cast<size_t>(info.params[i])].name, " is read again, but has no place");
    check_saved(step);
    const auto& saved = saved_content_[static_cast<size_t>(step.op)];
    for (size_t i = 0; i < step.saved.size(); ++i)
      expect(step.saved[i], i < saved.size() ? saved[i] : kNothing, saved_name(info, i));
    for (size_t i = 0; i < info.outputs.size(); ++i) expect_complete_gradient(step, i);

    use_workspace(step, Pass::kBackward);
    if (use.clobbers_dout)
      for (const TensorRef& ref : step.doutputs) write(ref, "a destroyed gradient of " + info.scope);
    for (size_t i = 0; i < info.inputs.size(); ++i)
      if (has(needs(step).inputs, i)) write_input_gradient(step, i);
    for (size_t i = 0; i < info.params.size(); ++i)
      if (has(needs(step).params, i)) write_param_gradient(step, i);
  }

  void expect_complete_gradient(const PlanStep& step, size_t i) {
    const auto v = static_cast<size_t>(op(step).outputs[i]);
    if (!needs_.value_needs_gradient[v]) return;
    same_spec(step.doutputs[i], gradient_spec(v), "gradient of " + name(op(step).outputs[i]));
    expect_complete_gradient(step.doutputs[i], v, "is read");
  }

  void expect_complete_gradient(const TensorRef& ref, size_t v, const char* when) {
    const std::string what = "gradient of " + graph_.values()[v].name;
    if (gradient_parts_[v] != expected_parts_[v])
      problem(what, " ", when, " with ", gradient_parts_[v], " of ", expected_parts_[v], " contributions");
    expect(ref, gradient_content_[v], what);
  }

  void write_input_gradient(const PlanStep& step, size_t i) {
    const auto v = static_cast<size_t>(op(step).inputs[i]);
    const std::string what = "gradient of " + name(op(step).inputs[i]);
    const TensorRef& ref = step.dinputs[i];
    same_spec(ref, gradient_spec(v), what);
    if (ref.region != Region::kArena) return problem(what, " has no place in the arena");
    if (!same_memory(ref, program_.value_gradients[v])) {
      temporary_content_[ref.offset] = write(ref, "temporary " + what);
      return;
    }
    if (step.dinput_modes[i] == GradMode::kAdd) {
      expect(ref, gradient_content_[v], what + " (added to)");
    } else if (gradient_parts_[v] != 0) {
      problem(what, " is overwritten although ", gradient_parts_[v], " contributions arrived before");
    }
    ++gradient_parts_[v];
    const BitMask passes = op(step).op->passes_gradient(graph_.specs_of(op(step)));
    const bool shared = has(passes, i) && !step.doutputs.empty() && same_memory(ref, step.doutputs[0]);
    if (shared) {  // nothing is written: the same content under a second name
      gradient_content_[v] = gradient_content_[static_cast<size_t>(op(step).outputs[0])];
    } else {
      for (const auto* refs : {&step.inputs, &step.outputs, &step.saved})
        for (const TensorRef& read : *refs) disjoint(ref, read, what);
      if (has(passes, i) == false)
        for (const TensorRef& read : step.doutputs) disjoint(ref, read, what);
      gradient_content_[v] = write(ref, what);
    }
  }

  void write_param_gradient(const PlanStep& step, size_t i) {
    const auto p = static_cast<size_t>(op(step).params[i]);
    const std::string what = "gradient of " + graph_.params()[p].name;
    same_spec(step.dparams[i], {graph_.params()[p].shape, DType::kF32}, what);
    if (step.dparams[i].region != Region::kArena) return problem(what, " has no place in the arena");
    if (step.dparam_modes[i] == GradMode::kAdd) {
      expect(step.dparams[i], param_content_[p], what + " (added to)");
    } else if (param_parts_[p] != 0) {
      problem(what, " is overwritten although ", param_parts_[p], " contributions arrived before");
    }
    ++param_parts_[p];
    param_content_[p] = write(step.dparams[i], what);
  }

  void add_gradient(const PlanStep& step) {
    for (int input : op(step).inputs) {
      const auto v = static_cast<size_t>(input);
      if (!same_memory(program_.value_gradients[v], step.dinputs[0]) || gradient_parts_[v] == 0) continue;
      expect(step.doutputs[0], temporary_content_[step.doutputs[0].offset], "temporary gradient");
      expect(step.dinputs[0], gradient_content_[v], "gradient of " + graph_.values()[v].name);
      ++gradient_parts_[v];
      gradient_content_[v] = write(step.dinputs[0], "gradient of " + graph_.values()[v].name);
      return;
    }
    problem("adds to a gradient that nobody wrote");
  }

  /// The same content at a second place, for an operation that destroys what it reads.
  void copy_gradient(const PlanStep& step) {
    for (int output : op(step).outputs) {
      const auto v = static_cast<size_t>(output);
      if (!same_memory(program_.value_gradients[v], step.doutputs[0])) continue;
      expect_complete_gradient(step.doutputs[0], v, "is copied");
      disjoint(step.dinputs[0], step.doutputs[0], "copy of a gradient");
      put(step.dinputs[0], gradient_content_[v]);
      return;
    }
    problem("copies what is no gradient of ", op(step).scope);
  }

  void sum_gradient(const PlanStep& step) {
    const auto p = static_cast<size_t>(step.param);
    const int expected = expected_param_parts_[p];
    if (param_parts_[p] != expected)
      problem("gradient of ", graph_.params()[p].name, " is summed with ", param_parts_[p], " of ", expected,
              " contributions");
    expect(step.dparams[0], param_content_[p], "gradient of " + graph_.params()[p].name);
    ++param_sums_[p];
  }

  /// What must be true behind the last step.
  void end() {
    const bool backward = !options_.forward_only && graph_.loss() >= 0;
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      const OpInfo& info = graph_.ops()[o];
      if (info.state >= 0 && !running_[o]) problem("state ", name(info.state), " is never written by ", info.scope);
      if (going_back_[o] != (backward && running_[o] && needs_.op_needs[o].any()))
        problem("the backward pass of ", info.scope, " ", info.op->kind(),
                going_back_[o] ? " runs for nothing" : " never runs");
    }
    for (size_t v = 0; v < graph_.values().size(); ++v) {
      const int value = static_cast<int>(v);
      const bool is_kept = graph_.values()[v].role == ValueRole::kComputed && is_public(graph_, value);
      if (value == graph_.loss() || graph_.values()[v].kept || (options_.keep_all_values && is_kept))
        expect(program_.values[v], value_content_[v], name(value) + " at the end");
      if (backward && options_.keep_gradients && is_kept && needs_.value_needs_gradient[v] && expected_parts_[v] > 0)
        expect_complete_gradient(program_.value_gradients[v], v, "is kept");
    }
    for (size_t p = 0; backward && p < graph_.params().size(); ++p) expect_param_gradient(p);
  }

  void expect_param_gradient(size_t p) {
    const std::string what = "the gradient of " + graph_.params()[p].name;
    const int expected = expected_param_parts_[p];
    if (param_parts_[p] != expected)
      problem("at the end, ", what, " has ", param_parts_[p], " of ", expected, " contributions");
    if (expected > 0 && options_.keep_gradients)
      expect(program_.param_gradients[p], param_content_[p], what + " at the end");
    const int sums = expected > 0 && !options_.keep_gradients ? 1 : 0;
    if (param_sums_[p] != sums) problem("at the end, ", what, " was summed ", param_sums_[p], " times, not ", sums);
  }

  const Graph& graph_;
  const NeedAnalysis& needs_;
  const Program& program_;
  const ProgramOptions& options_;
  ContentMap arena_, states_;
  std::vector<std::string> contents_{"nothing"};
  std::vector<int> value_content_, gradient_content_, gradient_parts_, param_content_, param_parts_, param_sums_;
  std::map<std::pair<int, int>, int> state_content_;  // (state, operation that wrote it or -1) -> content
  std::vector<std::vector<int>> saved_content_;
  std::vector<bool> running_, going_back_;  // per operation: forward, backward are in the program
  std::vector<int> expected_parts_, expected_param_parts_;
  std::map<int64_t, int> temporary_content_;
  std::vector<std::string> problems_;
  int step_ = 0;
};

}  // namespace

ProgramReport replay_program(const Graph& graph, const NeedAnalysis& needs, const Program& program,
                             const ProgramOptions& options) {
  return Replay(graph, needs, program, options).run();
}

std::vector<std::string> check_program(const Graph& graph, const NeedAnalysis& needs, const Program& program,
                                       const ProgramOptions& options) {
  return replay_program(graph, needs, program, options).problems;
}

}  // namespace permafrost
