#include "parallel/plan/program.h"

#include <algorithm>
#include <map>

#include "core/base/narrow.h"
#include "parallel/plan/arena_layout.h"
#include "parallel/plan/gradient_sharing.h"

namespace permafrost {

std::string_view to_string(BufferKind kind) {
  switch (kind) {
    case BufferKind::kActivation:
      return "activation";
    case BufferKind::kSaved:
      return "saved";
    case BufferKind::kGradient:
      return "gradient";
    case BufferKind::kParamGradient:
      return "param_gradient";
    case BufferKind::kWorkspace:
      return "workspace";
  }
  return "?";
}

bool is_public(const Graph& graph, int value) {
  const ValueInfo& info = graph.values()[static_cast<size_t>(value)];
  return info.role != ValueRole::kComputed || !info.name.ends_with("_" + std::to_string(info.producer));
}

BitMask adjoining_params(const Graph& graph, const PlanStep& step) {
  BitMask mask = 0;
  for (size_t i = 1; i < step.params.size(); ++i) {
    const std::vector<int>& params = graph.ops()[static_cast<size_t>(step.op)].params;
    const auto unit = [&](size_t position) { return graph.params()[static_cast<size_t>(params[position])].unit; };
    const TensorRef &before = step.params[i - 1], &ref = step.params[i];
    if (ref.region != Region::kNone && ref.region == before.region && unit(i) == unit(i - 1) &&
        ref.spec.dtype == before.spec.dtype && ref.offset == before.offset + before.spec.bytes())
      mask |= bit(i);
  }
  return mask;
}

namespace {

/// Builds a program in four passes: emit the steps; note who writes and reads what; decide which tensors share
/// memory; lay out the arena and fill in the addresses.
class ProgramBuilder {
 public:
  ProgramBuilder(const Graph& graph, const NeedAnalysis& needs, const std::vector<ParamPlacement>& placements,
                 const ProgramOptions& options)
      : graph_(graph), needs_(needs), placements_(placements), options_(options) {}

  Program build() {
    PERMAFROST_CHECK(placements_.size() == graph_.params().size(), "build_program: one placement per parameter (",
                     graph_.params().size(), "); got ", placements_.size());
    place_inputs_and_states();
    find_running_ops();
    emit_forward();
    check_states();
    if (!options_.forward_only && graph_.loss() >= 0) emit_backward();
    end_ = narrow<int>(program_.steps.size());
    assign_value_buffers();
    assign_gradient_buffers();
    assign_param_gradient_buffers();
    assign_step_buffers();
    program_.peak_live_bytes = peak_live_bytes(program_.buffers);
    program_.arena_bytes = layout_arena(program_.buffers, options_.reuse_memory);
    resolve();
    return std::move(program_);
  }

 private:
  const OpInfo& op(int index) const { return graph_.ops()[static_cast<size_t>(index)]; }
  const Needs& needs(int op) const { return needs_.op_needs[static_cast<size_t>(op)]; }
  const ValueInfo& value(int index) const { return graph_.values()[static_cast<size_t>(index)]; }
  bool kept(int v) const {
    return v == graph_.loss() || value(v).kept || (options_.keep_all_values && is_public(graph_, v));
  }
  TensorSpec gradient_spec(int v) const { return {value(v).spec.shape, graph_.compute()}; }

  void place_inputs_and_states() {
    program_.values.resize(graph_.values().size());
    program_.value_gradients.resize(graph_.values().size());
    program_.param_gradients.resize(graph_.params().size());
    for (size_t v = 0; v < graph_.values().size(); ++v) {
      const ValueInfo& info = graph_.values()[v];
      if (info.role == ValueRole::kComputed) continue;
      int64_t& end = info.role == ValueRole::kInput ? program_.input_bytes : program_.state_bytes;
      program_.values[v] = {info.role == ValueRole::kInput ? Region::kInputs : Region::kState, end, info.spec, -1};
      end += round_up(info.spec.bytes(), kArenaAlignment);
    }
  }

  /// An operation runs when its result is wanted: by the loss, by a kept value or by a state. Without a loss all run.
  void find_running_ops() {
    running_.assign(graph_.ops().size(), graph_.loss() < 0);
    std::vector<bool> wanted(graph_.values().size(), false);
    for (size_t v = 0; v < wanted.size(); ++v) wanted[v] = kept(static_cast<int>(v));
    for (size_t o = graph_.ops().size(); o-- > 0;) {
      const OpInfo& info = graph_.ops()[o];
      const bool result_wanted =
          std::ranges::any_of(info.outputs, [&](int v) { return wanted[static_cast<size_t>(v)]; });
      if (!running_[o] && !result_wanted && info.state < 0) continue;
      running_[o] = true;
      for (int v : info.inputs) wanted[static_cast<size_t>(v)] = true;
    }
  }

  PlanStep& add_step(StepKind kind, int op_index) {
    PlanStep& step = program_.steps.emplace_back();
    step.kind = kind;
    step.op = op_index;
    step.unit = op(op_index).unit;
    return step;
  }

  void emit_forward() {
    forward_step_.assign(graph_.ops().size(), -1);
    backward_step_.assign(graph_.ops().size(), -1);
    int last = -1;
    for (int o = 0; o < narrow<int>(graph_.ops().size()); ++o) {
      if (!running_[static_cast<size_t>(o)]) continue;
      if (last >= 0 && takes_along(o, last)) {
        PlanStep& step = program_.steps.back();
        step.before = last;
        step.op = o;
        step.unit = op(o).unit;
      } else {
        add_step(StepKind::kForward, o);
      }
      forward_step_[static_cast<size_t>(o)] = narrow<int>(program_.steps.size()) - 1;
      last = program_.steps.back().before < 0 ? o : -1;  // one at most
    }
  }

  /// Whether operation `before`, the one that runs right before o, becomes a part of o's step. A step has one set of
  /// parameters, one workspace and one set of what is saved: those of o.
  bool takes_along(int o, int before) const {
    const OpInfo& first = op(before);
    if (op(o).inputs.empty() || first.outputs.empty() || op(o).inputs[0] != first.outputs[0]) return false;
    if (!op(o).op->takes_along(*first.op)) return false;
    const OpSpecs specs = graph_.specs_of(first);
    return first.outputs.size() == 1 && first.params.empty() && first.state < 0 &&
           first.op->saved(specs, needs(before)).empty() &&
           first.op->workspace_bytes(specs, Pass::kForward, needs(before), options_.workers) == 0;
  }

  /// Backward may read inputs again. A state must still hold then what forward read.
  void check_states() const {
    if (options_.forward_only || graph_.loss() < 0) return;
    std::map<int, int> last_writer;  // state -> operation
    for (size_t o = 0; o < graph_.ops().size(); ++o)
      if (running_[o] && op(static_cast<int>(o)).state >= 0)
        last_writer[op(static_cast<int>(o)).state] = static_cast<int>(o);
    for (int o = 0; o < narrow<int>(graph_.ops().size()); ++o) {
      if (!running_[static_cast<size_t>(o)] || !needs(o).any()) continue;
      const BackwardUse use = op(o).op->backward_use(needs(o));
      for (size_t i = 0; i < op(o).inputs.size(); ++i) {
        const auto writer = last_writer.find(op(o).inputs[i]);
        PERMAFROST_CHECK(
            !has(use.inputs, i) || writer == last_writer.end() || writer->second < o,
            "build_program: a state that backward reads must not be written after it was read in forward; got ",
            value(op(o).inputs[i]).name, ", read by ", op(o).op->kind(), " in ", op(o).scope);
      }
    }
  }

  void emit_backward() {
    std::vector<bool> value_written(graph_.values().size(), false), param_written(graph_.params().size(), false);
    std::vector<int> last_writer(graph_.params().size(), -1);  // earliest operation = last in backward order
    for (size_t o = graph_.ops().size(); o-- > 0;) {
      if (!running_[o]) continue;
      for (size_t i = 0; i < op(static_cast<int>(o)).params.size(); ++i)
        if (has(needs_.op_needs[o].params, i))
          last_writer[static_cast<size_t>(op(static_cast<int>(o)).params[i])] = static_cast<int>(o);
    }
    for (int o = narrow<int>(graph_.ops().size()); o-- > 0;) {
      if (!running_[static_cast<size_t>(o)] || !needs(o).any()) continue;
      emit_copies(o);
      backward_step_[static_cast<size_t>(o)] = narrow<int>(program_.steps.size());
      emit_backward_step(o, value_written, param_written);
      if (options_.keep_gradients) continue;
      for (size_t i = 0; i < op(o).params.size(); ++i) {
        const int p = op(o).params[i];
        if (!has(needs(o).params, i) || last_writer[static_cast<size_t>(p)] != o) continue;
        if (std::ranges::find(op(o).params.begin() + static_cast<std::ptrdiff_t>(i) + 1, op(o).params.end(), p) !=
            op(o).params.end())
          continue;  // the same parameter twice in one operation: summed once, after its last position
        add_step(StepKind::kSumGradient, o).param = p;
      }
    }
  }

  /// Gradients that must outlive a backward pass that destroys them are copied for it.
  void emit_copies(int o) {
    if (!options_.keep_gradients || !op(o).op->backward_use(needs(o)).clobbers_dout) return;
    for (size_t i = 0; i < op(o).outputs.size(); ++i) {
      const int v = op(o).outputs[i];
      if (!needs_.value_needs_gradient[static_cast<size_t>(v)] || !is_public(graph_, v)) continue;
      copies_[{o, i}] = {narrow<int>(program_.steps.size()), -1};
      add_step(StepKind::kCopyGradient, o);
    }
  }

  void emit_backward_step(int o, std::vector<bool>& value_written, std::vector<bool>& param_written) {
    const OpInfo& info = op(o);
    std::vector<size_t> through_temporary;
    PlanStep& step = add_step(StepKind::kBackward, o);
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      GradMode mode = GradMode::kOverwrite;
      if (has(needs(o).inputs, i)) {
        const auto v = static_cast<size_t>(info.inputs[i]);
        if (value_written[v]) mode = GradMode::kAdd;
        if (mode == GradMode::kAdd && !info.op->adds_input_gradient(i)) {
          through_temporary.push_back(i);
          mode = GradMode::kOverwrite;
        }
        value_written[v] = true;
      }
      step.dinput_modes.push_back(mode);
    }
    for (size_t i = 0; i < info.params.size(); ++i) {
      const auto p = static_cast<size_t>(info.params[i]);
      step.dparam_modes.push_back(has(needs(o).params, i) && param_written[p] ? GradMode::kAdd : GradMode::kOverwrite);
      if (has(needs(o).params, i)) param_written[p] = true;
    }
    const int backward_step = narrow<int>(program_.steps.size()) - 1;
    for (size_t i : through_temporary) {
      temporaries_[{backward_step, i}] = narrow<int>(program_.steps.size());
      add_step(StepKind::kAddGradient, o).dinput_modes = {GradMode::kAdd};
    }
  }

  int new_buffer(std::string name, BufferKind kind, int64_t bytes, int first, int last) {
    program_.buffers.push_back({std::move(name), kind, round_up(bytes, kArenaAlignment), 0, first, last});
    return narrow<int>(program_.buffers.size()) - 1;
  }
  TensorRef in_arena(int buffer, const TensorSpec& spec) const { return {Region::kArena, 0, spec, buffer}; }

  /// Steps at which a value's content is read.
  std::vector<std::vector<int>> value_reads() const {
    std::vector<std::vector<int>> reads(graph_.values().size());
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      if (forward_step_[o] < 0) continue;
      const OpInfo& info = graph_.ops()[o];
      for (int v : info.inputs) reads[static_cast<size_t>(v)].push_back(forward_step_[o]);
      if (backward_step_[o] < 0) continue;
      const BackwardUse use = info.op->backward_use(needs_.op_needs[o]);
      for (size_t i = 0; i < info.inputs.size(); ++i)
        if (has(use.inputs, i)) reads[static_cast<size_t>(info.inputs[i])].push_back(backward_step_[o]);
      for (size_t i = 0; i < info.outputs.size(); ++i)
        if (has(use.outputs, i)) reads[static_cast<size_t>(info.outputs[i])].push_back(backward_step_[o]);
    }
    return reads;
  }

  void assign_value_buffers() {
    const auto reads = value_reads();
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      if (forward_step_[o] < 0) continue;
      const OpInfo& info = graph_.ops()[o];
      const int step = forward_step_[o];
      for (size_t i = 0; i < info.outputs.size(); ++i) {
        const auto v = static_cast<size_t>(info.outputs[i]);
        int last = step;
        for (int r : reads[v]) last = std::max(last, r);
        if (kept(static_cast<int>(v))) last = end_;
        int buffer = i == 0 ? buffer_taken_over(info, step, reads) : -1;
        if (buffer >= 0) {
          program_.buffers[static_cast<size_t>(buffer)].last_step = last;
        } else {
          buffer = new_buffer(value(static_cast<int>(v)).name, BufferKind::kActivation,
                              value(static_cast<int>(v)).spec.bytes(), step, last);
        }
        program_.values[v] = in_arena(buffer, value(static_cast<int>(v)).spec);
      }
    }
  }

  /// The buffer of the input that output 0 may overwrite, or -1.
  int buffer_taken_over(const OpInfo& info, int step, const std::vector<std::vector<int>>& reads) const {
    if (!options_.reuse_memory) return -1;
    const std::optional<size_t> candidate = info.op->in_place_input();
    if (!candidate) return -1;
    const int v = info.inputs[*candidate];
    if (value(v).role != ValueRole::kComputed || kept(v)) return -1;
    if (!(value(v).spec == value(info.outputs[0]).spec)) return -1;
    const auto& uses = reads[static_cast<size_t>(v)];
    if (std::ranges::any_of(uses, [&](int r) { return r > step; })) return -1;
    if (std::ranges::count(info.inputs, v) != 1) return -1;
    return program_.values[static_cast<size_t>(v)].buffer;
  }

  void assign_gradient_buffers() {
    std::vector<GradientUse> uses(graph_.values().size());
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      const int step = backward_step_[o];
      if (step < 0) continue;
      const OpInfo& info = graph_.ops()[o];
      for (size_t i = 0; i < info.inputs.size(); ++i) {
        if (!has(needs_.op_needs[o].inputs, i)) continue;
        const auto temporary = temporaries_.find({step, i});
        uses[static_cast<size_t>(info.inputs[i])].writes.push_back(temporary == temporaries_.end() ? step
                                                                                                   : temporary->second);
      }
      const bool clobbers = info.op->backward_use(needs_.op_needs[o]).clobbers_dout;
      for (size_t i = 0; i < info.outputs.size(); ++i) {
        const int v = info.outputs[i];
        if (!needs_.value_needs_gradient[static_cast<size_t>(v)]) continue;
        const auto copy = copies_.find({static_cast<int>(o), i});
        uses[static_cast<size_t>(v)].reads.push_back(copy == copies_.end() ? step : copy->second.step);
        if (clobbers && copy == copies_.end()) uses[static_cast<size_t>(v)].writes.push_back(step);
      }
    }
    for (size_t v = 0; v < uses.size(); ++v)
      if (options_.keep_gradients && !uses[v].writes.empty() && is_public(graph_, static_cast<int>(v)))
        uses[v].reads.push_back(end_);

    GradientSharing sharing(uses);
    if (options_.reuse_memory) share_passed_gradients(sharing);
    for (const auto& [members, first, last] : sharing.classes()) {
      const int root = members.front();
      const int buffer =
          new_buffer("grad:" + value(root).name, BufferKind::kGradient, gradient_spec(root).bytes(), first, last);
      for (int v : members) program_.value_gradients[static_cast<size_t>(v)] = in_arena(buffer, gradient_spec(v));
    }
  }

  void share_passed_gradients(GradientSharing& sharing) const {
    for (size_t o = graph_.ops().size(); o-- > 0;) {
      const int step = backward_step_[o];
      if (step < 0) continue;
      const OpInfo& info = graph_.ops()[o];
      const BitMask passes = info.op->passes_gradient(graph_.specs_of(info));
      const int out = info.outputs.empty() ? -1 : info.outputs[0];
      if (!passes || !needs_.value_needs_gradient[static_cast<size_t>(out)]) continue;
      for (size_t i = 0; i < info.inputs.size(); ++i) {
        const int v = info.inputs[i];
        if (!has(passes & needs_.op_needs[o].inputs, i) || std::ranges::count(info.inputs, v) != 1) continue;
        if (program_.steps[static_cast<size_t>(step)].dinput_modes[i] != GradMode::kOverwrite) continue;
        if (gradient_spec(v) == gradient_spec(out)) sharing.try_share(out, v, step);
      }
    }
  }

  void assign_param_gradient_buffers() {
    std::vector<int> first(graph_.params().size(), -1), last(graph_.params().size(), -1);
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      const PlanStep& step = program_.steps[s];
      if (step.kind == StepKind::kSumGradient) last[static_cast<size_t>(step.param)] = static_cast<int>(s);
      if (step.kind != StepKind::kBackward) continue;
      for (size_t i = 0; i < op(step.op).params.size(); ++i) {
        const auto p = static_cast<size_t>(op(step.op).params[i]);
        if (!has(needs(step.op).params, i)) continue;
        if (first[p] < 0) first[p] = static_cast<int>(s);
        last[p] = std::max(last[p], options_.keep_gradients ? end_ : static_cast<int>(s));
      }
    }
    for (size_t p = 0; p < first.size(); ++p) {
      if (first[p] < 0) continue;
      const TensorSpec spec{graph_.params()[p].shape, DType::kF32};
      const int buffer =
          new_buffer("grad:" + graph_.params()[p].name, BufferKind::kParamGradient, spec.bytes(), first[p], last[p]);
      program_.param_gradients[p] = in_arena(buffer, spec);
    }
  }

  /// Saved buffers, workspaces and temporaries.
  void assign_step_buffers() {
    for (size_t o = 0; o < graph_.ops().size(); ++o) {
      if (forward_step_[o] < 0) continue;
      const OpInfo& info = graph_.ops()[o];
      const OpSpecs specs = graph_.specs_of(info);
      PlanStep& forward = program_.steps[static_cast<size_t>(forward_step_[o])];
      if (forward.op == static_cast<int>(o)) assign_workspace(forward, specs, Pass::kForward, forward_step_[o]);
      if (backward_step_[o] < 0) continue;
      PlanStep& backward = program_.steps[static_cast<size_t>(backward_step_[o])];
      assign_workspace(backward, specs, Pass::kBackward, backward_step_[o]);
      for (const TensorSpec& spec : info.op->saved(specs, needs_.op_needs[o])) {
        const int buffer = new_buffer(concat(info.scope, ".", info.op->kind(), "_", o, ".saved"), BufferKind::kSaved,
                                      spec.bytes(), forward_step_[o], backward_step_[o]);
        forward.saved.push_back(in_arena(buffer, spec));
        backward.saved.push_back(in_arena(buffer, spec));
      }
    }
    for (auto& [key, copy] : copies_) {
      const int v = op(key.first).outputs[key.second];
      copy.buffer = new_buffer("copy of grad:" + value(v).name, BufferKind::kGradient, gradient_spec(v).bytes(),
                               copy.step, backward_step_[static_cast<size_t>(key.first)]);
      PlanStep& step = program_.steps[static_cast<size_t>(copy.step)];
      step.doutputs = {program_.value_gradients[static_cast<size_t>(v)]};
      step.dinputs = {in_arena(copy.buffer, gradient_spec(v))};
    }
    for (const auto& [key, add_step] : temporaries_) {
      const auto& [backward, input] = key;
      const int v = op(program_.steps[static_cast<size_t>(backward)].op).inputs[input];
      const int buffer = new_buffer("temporary grad:" + value(v).name, BufferKind::kGradient, gradient_spec(v).bytes(),
                                    backward, add_step);
      PlanStep& add = program_.steps[static_cast<size_t>(add_step)];
      add.doutputs = {in_arena(buffer, gradient_spec(v))};
      add.dinputs = {program_.value_gradients[static_cast<size_t>(v)]};
    }
  }

  void assign_workspace(PlanStep& step, const OpSpecs& specs, Pass pass, int index) {
    const int64_t bytes = op(step.op).op->workspace_bytes(specs, pass, needs(step.op), options_.workers);
    if (bytes == 0) return;
    const TensorSpec spec{{bytes}, DType::kU8};
    step.workspace =
        in_arena(new_buffer(concat("workspace of step ", index), BufferKind::kWorkspace, bytes, index, index), spec);
  }

  void resolve() {
    const auto fix = [&](TensorRef& ref) {
      if (ref.region == Region::kArena) ref.offset = program_.buffers[static_cast<size_t>(ref.buffer)].offset;
    };
    for (size_t s = 0; s < program_.steps.size(); ++s) fill_operands(program_.steps[s], static_cast<int>(s));
    for (auto* refs : {&program_.values, &program_.value_gradients, &program_.param_gradients})
      for (TensorRef& ref : *refs) fix(ref);
    for (PlanStep& step : program_.steps) {
      for (auto* refs : {&step.inputs, &step.params, &step.outputs, &step.saved, &step.doutputs, &step.dinputs,
                         &step.dparams, &step.before_inputs})
        for (TensorRef& ref : *refs) fix(ref);
      fix(step.workspace);
    }
  }

  TensorRef param_ref(int p) const {
    const ParamPlacement& placement = placements_[static_cast<size_t>(p)];
    return {placement.region, placement.offset, placement.stored, -1};
  }

  void fill_operands(PlanStep& step, int index) {
    if (step.kind == StepKind::kSumGradient) step.dparams = {program_.param_gradients[static_cast<size_t>(step.param)]};
    if (step.kind != StepKind::kForward && step.kind != StepKind::kBackward) return;
    const OpInfo& info = op(step.op);
    const bool forward = step.kind == StepKind::kForward;
    const BackwardUse use = forward ? BackwardUse{} : info.op->backward_use(needs(step.op));
    for (size_t i = 0; i < info.inputs.size(); ++i)
      step.inputs.push_back(forward || has(use.inputs, i) ? program_.values[static_cast<size_t>(info.inputs[i])]
                                                          : TensorRef{});
    for (size_t i = 0; i < info.params.size(); ++i)
      step.params.push_back(forward || has(use.params, i) ? param_ref(info.params[i]) : TensorRef{});
    for (size_t i = 0; i < info.outputs.size(); ++i)
      step.outputs.push_back(forward || has(use.outputs, i) ? program_.values[static_cast<size_t>(info.outputs[i])]
                                                            : TensorRef{});
    if (forward) {
      if (step.before >= 0)
        for (int v : op(step.before).inputs) step.before_inputs.push_back(program_.values[static_cast<size_t>(v)]);
      if (info.state >= 0) step.outputs.push_back(program_.values[static_cast<size_t>(info.state)]);
      return;
    }
    for (size_t i = 0; i < info.outputs.size(); ++i) {
      const auto v = static_cast<size_t>(info.outputs[i]);
      const auto copy = copies_.find({step.op, i});
      step.doutputs.push_back(copy == copies_.end() ? program_.value_gradients[v]
                                                    : in_arena(copy->second.buffer, gradient_spec(info.outputs[i])));
    }
    for (size_t i = 0; i < info.inputs.size(); ++i) {
      const auto temporary = temporaries_.find({index, i});
      if (!has(needs(step.op).inputs, i)) {
        step.dinputs.emplace_back();
      } else if (temporary != temporaries_.end()) {
        step.dinputs.push_back(program_.steps[static_cast<size_t>(temporary->second)].doutputs[0]);
      } else {
        step.dinputs.push_back(program_.value_gradients[static_cast<size_t>(info.inputs[i])]);
      }
    }
    for (size_t i = 0; i < info.params.size(); ++i)
      step.dparams.push_back(
          has(needs(step.op).params, i) ? program_.param_gradients[static_cast<size_t>(info.params[i])] : TensorRef{});
  }

  const Graph& graph_;
  const NeedAnalysis& needs_;
  const std::vector<ParamPlacement>& placements_;
  const ProgramOptions& options_;
  Program program_;
  std::vector<bool> running_;
  std::vector<int> forward_step_, backward_step_;  // per operation; -1 = never
  struct Copy {
    int step = 0, buffer = -1;
  };
  std::map<std::pair<int, size_t>, Copy> copies_;      // (operation, output) -> kCopyGradient step and what it fills
  std::map<std::pair<int, size_t>, int> temporaries_;  // (backward step, input) -> kAddGradient step
  int end_ = 0;                                        // one behind the last step: kept tensors live until here
};

}  // namespace

Program build_program(const Graph& graph, const NeedAnalysis& needs, const std::vector<ParamPlacement>& placements,
                      const ProgramOptions& options) {
  return ProgramBuilder(graph, needs, placements, options).build();
}

}  // namespace permafrost
