#include "core/graph/graph.h"

#include "core/base/narrow.h"
#include "core/graph/ops/write_state.h"

namespace permafrost {

Graph::Scope::Scope(Graph& graph, std::string_view name, bool unit)
    : graph_(graph), length_(graph.scope_.size()), unit_(graph.unit_) {
  graph.scope_ = graph.path(name);
  if (unit) graph.unit_ = graph.enter_unit(graph.scope_);
}

Graph::Scope::~Scope() {
  graph_.scope_.resize(length_);
  graph_.unit_ = unit_;
}

std::string Graph::path(std::string_view name) const {
  if (scope_.empty()) return std::string(name);
  return scope_ + "." + std::string(name);
}

Graph Graph::sharing(const Graph& owner) {
  Graph graph(owner.compute_);
  graph.params_ = owner.params_;
  graph.units_ = owner.units_;
  graph.sharing_ = true;
  return graph;
}

int Graph::enter_unit(const std::string& name) {
  if (!sharing_) {
    units_.push_back({name});
    return narrow<int>(units_.size()) - 1;
  }
  for (size_t u = 0; u < units_.size(); ++u)
    if (units_[u].name == name) return narrow<int>(u);
  fail(ErrorKind::kInternal, "Graph: a graph that shares parameters must use units of their owner; got ", name);
}

int Graph::current_unit() {
  // Work outside any declared unit has a unit of its own, so that every step belongs to one.
  if (unit_ < 0) unit_ = enter_unit(scope_.empty() ? "graph" : scope_);
  return unit_;
}

Value Graph::input(std::string_view name, const TensorSpec& spec) {
  values_.push_back({std::string(name), spec, ValueRole::kInput, -1, false, false});
  return {narrow<int>(values_.size() - 1)};
}

Value Graph::state(std::string_view name, const TensorSpec& spec, bool checkpointed) {
  values_.push_back({path(name), spec, ValueRole::kState, -1, checkpointed, false});
  return {narrow<int>(values_.size() - 1)};
}

Param Graph::param(std::string_view name, const Shape& shape, const Initializer& initializer) {
  if (const int known = find_param(name); known >= 0) {
    const ParamInfo& owner = params_[static_cast<size_t>(known)];
    if (!(owner.shape == shape))
      fail(ErrorKind::kShapeMismatch, "Graph::param: a borrower must use the owner's shape ", owner.shape, "; got ",
           shape, " [param=", name, "] in ", scope_);
    return {known};
  }
  if (sharing_)
    fail(ErrorKind::kInternal, "Graph: a graph that shares parameters must use those of their owner; got ", name);
  params_.push_back({std::string(name), shape, initializer, current_unit()});
  return {narrow<int>(params_.size() - 1)};
}

Value Graph::apply(std::unique_ptr<const Op> op, std::vector<Value> inputs, std::vector<Param> params) {
  OpInfo info;
  info.unit = current_unit();
  info.scope = scope_;
  std::vector<TensorSpec> input_specs;
  std::vector<Shape> param_shapes;
  for (Value value : inputs) {
    info.inputs.push_back(value.index);
    input_specs.push_back(spec(value));
  }
  for (Param param : params) {
    info.params.push_back(param.index);
    param_shapes.push_back(params_.at(static_cast<size_t>(param.index)).shape);
  }
  std::vector<TensorSpec> outputs;
  try {
    outputs = op->infer(input_specs, param_shapes);
  } catch (const Error& error) {
    fail(error.kind(), error.what(), " [scope=", scope_, "]",
         info.params.empty() ? "" : " [param=" + params_[static_cast<size_t>(info.params[0])].name + "]");
  }
  const int index = narrow<int>(ops_.size());
  for (const TensorSpec& output : outputs) {
    info.outputs.push_back(narrow<int>(values_.size()));
    values_.push_back({path(concat(op->kind(), "_", index)), output, ValueRole::kComputed, index, false, false});
  }
  info.op = std::move(op);
  ops_.push_back(std::move(info));
  return {ops_.back().outputs.empty() ? -1 : ops_.back().outputs[0]};
}

Value Graph::output(Value value, size_t i) const {
  const int producer = values_.at(static_cast<size_t>(value.index)).producer;
  PERMAFROST_CHECK(producer >= 0, "Graph::output: value ", value.index, " is not computed by an operation");
  return {ops_[static_cast<size_t>(producer)].outputs.at(i)};
}

void Graph::write_state(Value state, Value value) {
  PERMAFROST_CHECK(values_.at(static_cast<size_t>(state.index)).role == ValueRole::kState,
                   "Graph::write_state: the target must be a state; got ",
                   values_[static_cast<size_t>(state.index)].name);
  PERMAFROST_CHECK(spec(state) == spec(value), "Graph::write_state: ", values_[static_cast<size_t>(state.index)].name,
                   " takes ", spec(state), "; got ", spec(value));
  update_state(state, std::make_unique<WriteStateOp>(), {value});
}

void Graph::update_state(Value state, std::unique_ptr<const Op> op, std::vector<Value> inputs) {
  PERMAFROST_CHECK(values_.at(static_cast<size_t>(state.index)).role == ValueRole::kState,
                   "Graph::update_state: the target must be a state; got ",
                   values_[static_cast<size_t>(state.index)].name);
  apply(std::move(op), std::move(inputs));
  ops_.back().state = state.index;
}

Value Graph::name(Value value, std::string_view name) {
  const std::string full = path(name);
  PERMAFROST_CHECK(find_value(full) < 0, "Graph::name: a value called ", full, " exists already");
  values_.at(static_cast<size_t>(value.index)).name = full;
  return value;
}

Value Graph::keep(Value value) {
  values_.at(static_cast<size_t>(value.index)).kept = true;
  return value;
}

void Graph::set_loss(Value value) {
  PERMAFROST_CHECK((spec(value) == TensorSpec{{1}, DType::kF64}), "Graph::set_loss: loss must be (1) f64; got ",
                   spec(value));
  loss_ = value.index;
}

int Graph::find_value(std::string_view name) const {
  for (size_t i = 0; i < values_.size(); ++i)
    if (values_[i].name == name) return static_cast<int>(i);
  return -1;
}

int Graph::find_param(std::string_view name) const {
  for (size_t i = 0; i < params_.size(); ++i)
    if (params_[i].name == name) return static_cast<int>(i);
  return -1;
}

OpSpecs Graph::specs_of(const OpInfo& op) const {
  OpSpecs specs;
  for (int value : op.inputs) specs.inputs.push_back(values_[static_cast<size_t>(value)].spec);
  for (int value : op.outputs) specs.outputs.push_back(values_[static_cast<size_t>(value)].spec);
  for (int param : op.params) specs.params.push_back(params_[static_cast<size_t>(param)].shape);
  return specs;
}

}  // namespace permafrost
