#include "parallel/plan/check.h"

#include <map>

#include "core/base/check.h"

namespace permafrost {

namespace {

constexpr int kNothing = 0;

/// Which content every byte of the arena holds.
class ContentMap {
 public:
  explicit ContentMap(int64_t bytes) { ranges_[0] = {bytes, kNothing}; }

  void write(int64_t begin, int64_t bytes, int content) {
    if (bytes == 0) return;
    const int64_t end = begin + bytes;
    split(begin);
    split(end);
    ranges_.erase(ranges_.lower_bound(begin), ranges_.lower_bound(end));
    ranges_[begin] = {end, content};
  }

  /// True when all bytes hold `content`; otherwise `found` is what the first other byte holds.
  bool holds(int64_t begin, int64_t bytes, int content, int& found) const {
    if (bytes == 0) return true;
    auto at = ranges_.upper_bound(begin);
    if (at == ranges_.begin()) return false;
    --at;
    for (int64_t position = begin; position < begin + bytes; ++at) {
      if (at == ranges_.end() || at->second.content != content) {
        found = at == ranges_.end() ? kNothing : at->second.content;
        return false;
      }
      position = at->second.end;
    }
    return true;
  }

 private:
  struct Range {
    int64_t end = 0;
    int content = kNothing;
  };
  void split(int64_t position) {
    auto at = ranges_.upper_bound(position);
    if (at == ranges_.begin()) return;
    --at;
    if (at->first == position || at->second.end <= position) return;
    ranges_[position] = at->second;
    at->second.end = position;
  }
  std::map<int64_t, Range> ranges_;
};

class Replay {
 public:
  Replay(const Graph& graph, const NeedAnalysis& needs, const Program& program)
      : graph_(graph),
        needs_(needs),
        program_(program),
        map_(program.arena_bytes),
        value_content_(graph.values().size(), kNothing),
        gradient_content_(graph.values().size(), kNothing),
        gradient_parts_(graph.values().size(), 0),
        param_content_(graph.params().size(), kNothing),
        param_parts_(graph.params().size(), 0),
        saved_content_(graph.ops().size()),
        running_(find_running()) {}

  std::vector<std::string> run() {
    for (step_ = 0; step_ < program_.steps.size() && problems_.size() < kMaxProblems; ++step_) {
      const PlanStep& step = program_.steps[step_];
      switch (step.kind) {
        case StepKind::kForward: forward(step); break;
        case StepKind::kBackward: backward(step); break;
        case StepKind::kAddGradient: add_gradient(step); break;
        case StepKind::kSumGradient: sum_gradient(step); break;
      }
    }
    expect_all_param_gradients();
    if (graph_.loss() >= 0)
      expect(program_.values[static_cast<size_t>(graph_.loss())], value_content_[static_cast<size_t>(graph_.loss())], "the loss at the end");
    return std::move(problems_);
  }

 private:
  static constexpr size_t kMaxProblems = 20;

  template <typename... Args>
  void problem(const Args&... args) {
    if (problems_.size() < kMaxProblems) problems_.push_back(concat("step ", step_, ": ", args...));
  }

  const OpInfo& op(const PlanStep& step) const { return graph_.ops()[static_cast<size_t>(step.op)]; }
  const std::string& name(int value) const { return graph_.values()[static_cast<size_t>(value)].name; }

  bool in_range(const TensorRef& ref, const std::string& what) {
    if (ref.offset >= 0 && ref.offset % kArenaAlignment == 0 && ref.offset + ref.spec.bytes() <= program_.arena_bytes) return true;
    problem(what, " lies at ", ref.offset, " + ", ref.spec.bytes(), ", outside the arena of ", program_.arena_bytes, " or unaligned");
    return false;
  }

  void expect(const TensorRef& ref, int content, const std::string& what) {
    if (ref.region != Region::kArena) {
      if (ref.region == Region::kNone) problem(what, " has no place");
      return;
    }
    if (!in_range(ref, what)) return;
    int found = kNothing;
    if (content == kNothing) {
      problem(what, " is read before it was written");
    } else if (!map_.holds(ref.offset, ref.spec.bytes(), content, found)) {
      problem(what, " is read, but its memory was overwritten", found == kNothing ? "" : " by " + contents_[static_cast<size_t>(found)]);
    }
  }

  int write(const TensorRef& ref, const std::string& what) {
    contents_.push_back(what);
    const int content = static_cast<int>(contents_.size()) - 1;
    if (ref.region == Region::kArena && in_range(ref, what)) map_.write(ref.offset, ref.spec.bytes(), content);
    return content;
  }

  void same_spec(const TensorRef& ref, const TensorSpec& spec, const std::string& what) {
    if (ref.region != Region::kNone && !(ref.spec == spec)) problem(what, " is planned as ", ref.spec, ", the graph says ", spec);
  }

  static bool same_memory(const TensorRef& a, const TensorRef& b) {
    return a.region == Region::kArena && b.region == Region::kArena && a.offset == b.offset && a.spec.bytes() == b.spec.bytes();
  }

  /// Outputs must not destroy operands while these are read, unless the operation allows it.
  void disjoint(const TensorRef& written, const TensorRef& read, const std::string& what) {
    if (written.region != Region::kArena || read.region != Region::kArena) return;
    const bool apart = written.offset + written.spec.bytes() <= read.offset || read.offset + read.spec.bytes() <= written.offset;
    if (!apart && written.spec.bytes() > 0 && read.spec.bytes() > 0) problem(what, " overlaps an operand of the same step");
  }

  void forward(const PlanStep& step) {
    const OpInfo& info = op(step);
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      const auto v = static_cast<size_t>(info.inputs[i]);
      same_spec(step.inputs[i], graph_.values()[v].spec, name(info.inputs[i]));
      expect(step.inputs[i], value_content_[v], name(info.inputs[i]));
    }
    const auto in_place = info.op->in_place_input();
    for (size_t o = 0; o < info.outputs.size(); ++o) {
      same_spec(step.outputs[o], graph_.values()[static_cast<size_t>(info.outputs[o])].spec, name(info.outputs[o]));
      for (size_t i = 0; i < step.inputs.size(); ++i) {
        const bool allowed = o == 0 && in_place && *in_place == i && same_memory(step.outputs[0], step.inputs[i]);
        if (!allowed) disjoint(step.outputs[o], step.inputs[i], name(info.outputs[o]));
      }
    }
    if (step.workspace.region == Region::kArena) {
      for (const TensorRef& ref : step.inputs) disjoint(step.workspace, ref, "workspace");
      write(step.workspace, "a workspace");
    }
    for (size_t o = 0; o < info.outputs.size(); ++o)
      value_content_[static_cast<size_t>(info.outputs[o])] = write(step.outputs[o], name(info.outputs[o]));
    auto& saved = saved_content_[static_cast<size_t>(step.op)];
    for (size_t i = 0; i < step.saved.size(); ++i) saved.push_back(write(step.saved[i], concat("saved buffer ", i, " of ", info.scope)));
    // What was written by this very step must have survived its other writes.
    for (size_t o = 0; o < info.outputs.size(); ++o)
      expect(step.outputs[o], value_content_[static_cast<size_t>(info.outputs[o])], name(info.outputs[o]));
  }

  void backward(const PlanStep& step) {
    const OpInfo& info = op(step);
    const Needs& needs = needs_.op_needs[static_cast<size_t>(step.op)];
    const BackwardUse use = info.op->backward_use(needs);
    for (size_t i = 0; i < info.inputs.size(); ++i)
      if (has(use.inputs, i)) expect(step.inputs[i], value_content_[static_cast<size_t>(info.inputs[i])], name(info.inputs[i]));
    for (size_t i = 0; i < info.outputs.size(); ++i)
      if (has(use.outputs, i)) expect(step.outputs[i], value_content_[static_cast<size_t>(info.outputs[i])], name(info.outputs[i]));
    const auto& saved = saved_content_[static_cast<size_t>(step.op)];
    for (size_t i = 0; i < step.saved.size(); ++i)
      expect(step.saved[i], i < saved.size() ? saved[i] : kNothing, concat("saved buffer ", i, " of ", info.scope));
    for (size_t i = 0; i < info.outputs.size(); ++i) expect_complete_gradient(step, i);

    if (step.workspace.region == Region::kArena) {
      for (const auto* refs : {&step.inputs, &step.outputs, &step.saved, &step.doutputs})
        for (const TensorRef& ref : *refs) disjoint(step.workspace, ref, "workspace");
      write(step.workspace, "a workspace");
    }
    if (use.clobbers_dout)
      for (const TensorRef& ref : step.doutputs) write(ref, "a destroyed gradient of " + info.scope);
    for (size_t i = 0; i < info.inputs.size(); ++i)
      if (has(needs.inputs, i)) write_input_gradient(step, i);
    for (size_t i = 0; i < info.params.size(); ++i)
      if (has(needs.params, i)) write_param_gradient(step, i);
  }

  void expect_complete_gradient(const PlanStep& step, size_t i) {
    const auto v = static_cast<size_t>(op(step).outputs[i]);
    if (!needs_.value_needs_gradient[v]) return;
    const std::string what = "gradient of " + name(op(step).outputs[i]);
    same_spec(step.doutputs[i], {graph_.values()[v].spec.shape, graph_.compute()}, what);
    if (gradient_parts_[v] != expected_parts(static_cast<int>(v)))
      problem(what, " is read with ", gradient_parts_[v], " of ", expected_parts(static_cast<int>(v)), " contributions");
    expect(step.doutputs[i], gradient_content_[v], what);
  }

  /// Operations whose forward pass is in the program; what they need is what backward must do.
  std::vector<bool> find_running() const {
    std::vector<bool> running(graph_.ops().size(), false);
    for (const PlanStep& step : program_.steps)
      if (step.kind == StepKind::kForward) running[static_cast<size_t>(step.op)] = true;
    return running;
  }

  /// How many operations contribute to the gradient of a value.
  int expected_parts(int value) const {
    int parts = 0;
    for (size_t o = 0; o < graph_.ops().size(); ++o)
      for (size_t i = 0; running_[o] && i < graph_.ops()[o].inputs.size(); ++i)
        if (graph_.ops()[o].inputs[i] == value && has(needs_.op_needs[o].inputs, i)) ++parts;
    return parts;
  }

  int expected_param_parts(int param) const {
    int parts = 0;
    for (size_t o = 0; o < graph_.ops().size(); ++o)
      for (size_t i = 0; running_[o] && i < graph_.ops()[o].params.size(); ++i)
        if (graph_.ops()[o].params[i] == param && has(needs_.op_needs[o].params, i)) ++parts;
    return parts;
  }

  /// A program with a backward pass must finish the gradient of every trainable parameter.
  void expect_all_param_gradients() {
    bool backward = false;
    for (const PlanStep& step : program_.steps) backward |= step.kind == StepKind::kBackward;
    for (size_t p = 0; backward && p < graph_.params().size(); ++p)
      if (param_parts_[p] != expected_param_parts(static_cast<int>(p)))
        problem("at the end, the gradient of ", graph_.params()[p].name, " has ", param_parts_[p], " of ",
                expected_param_parts(static_cast<int>(p)), " contributions");
  }

  void write_input_gradient(const PlanStep& step, size_t i) {
    const auto v = static_cast<size_t>(op(step).inputs[i]);
    const std::string what = "gradient of " + name(op(step).inputs[i]);
    const TensorRef& ref = step.dinputs[i];
    const bool temporary = step_ + 1 < program_.steps.size() && !same_memory(ref, program_.value_gradients[v]);
    if (temporary) {
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

  void sum_gradient(const PlanStep& step) {
    const auto p = static_cast<size_t>(step.param);
    const int expected = expected_param_parts(step.param);
    if (param_parts_[p] != expected)
      problem("gradient of ", graph_.params()[p].name, " is summed with ", param_parts_[p], " of ", expected, " contributions");
    expect(step.dparams[0], param_content_[p], "gradient of " + graph_.params()[p].name);
  }

  const Graph& graph_;
  const NeedAnalysis& needs_;
  const Program& program_;
  ContentMap map_;
  std::vector<std::string> contents_{"nothing"};
  std::vector<int> value_content_, gradient_content_, gradient_parts_, param_content_, param_parts_;
  std::vector<std::vector<int>> saved_content_;
  std::vector<bool> running_;
  std::map<int64_t, int> temporary_content_;
  std::vector<std::string> problems_;
  size_t step_ = 0;
};

}  // namespace

std::vector<std::string> check_program(const Graph& graph, const NeedAnalysis& needs, const Program& program) {
  return Replay(graph, needs, program).run();
}

}  // namespace permafrost
