#include "core/kernels/cudnn/graph.h"

#include <array>

#include "core/base/check.h"

namespace permafrost::cuda::cudnn {

namespace {
/// What cuDNN said last.
std::string last_words() {
  char words[1024] = "";
  cudnnGetLastErrorString(words, sizeof(words));
  words[sizeof(words) - 1] = '\0';
  return words;
}
}  // namespace

void check(cudnnStatus_t status, std::string_view what, std::string_view descriptor) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Refusal(concat("cuDNN: ", what, " of ", descriptor, ": ", cudnnGetErrorString(status), ": ", last_words()));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type, std::string name) : name_(std::move(name)) {
  check(cudnnBackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor", name_);
}

Descriptor::~Descriptor() {
  if (raw_) cudnnBackendDestroyDescriptor(raw_);
}

void Descriptor::set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count,
                     const void* values) {
  check(cudnnBackendSetAttribute(raw_, attribute, type, count, values),
        concat("cudnnBackendSetAttribute ", static_cast<int>(attribute)), name_);
}

void Descriptor::finalize() { check(cudnnBackendFinalize(raw_), "cudnnBackendFinalize", name_); }

int64_t Descriptor::integer(cudnnBackendAttributeName_t attribute) const {
  int64_t value = 0, count = 0;
  check(cudnnBackendGetAttribute(raw_, attribute, CUDNN_TYPE_INT64, 1, &count, &value),
        concat("cudnnBackendGetAttribute ", static_cast<int>(attribute)), name_);
  return value;
}

int64_t Descriptor::descriptors(cudnnBackendAttributeName_t attribute, std::vector<Descriptor>& into) const {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& descriptor : into) raw.push_back(descriptor.raw_);
  int64_t count = 0;
  check(cudnnBackendGetAttribute(raw_, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::ssize(raw), &count, raw.data()),
        concat("cudnnBackendGetAttribute ", static_cast<int>(attribute)), name_);
  return count;
}

Graph::Tensor Graph::add(std::string name, const Layout& layout, cudnnDataType_t type, bool between, bool scalar) {
  // Rows of numbers may begin anywhere in the batch; matrices are read in pieces of 16 bytes.
  const int64_t alignment = type == CUDNN_DATA_BFLOAT16 || type == CUDNN_DATA_HALF ? 16 : 4;
  const Tensor index = tensors_.size();
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, concat("tensor ", name));
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, layout.dims);
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, layout.strides);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, static_cast<int64_t>(index) + 1);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
  if (between) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  if (scalar) tensor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
  tensor.finalize();
  tensors_.push_back(std::move(tensor));
  return index;
}

Graph::Tensor Graph::memory(std::string name, const Layout& layout, cudnnDataType_t type) {
  const Tensor tensor = add(std::move(name), layout, type, false, false);
  memory_ids_.push_back(static_cast<int64_t>(tensor) + 1);
  return tensor;
}

Graph::Tensor Graph::scalar(std::string name, float value) {
  const Tensor tensor = add(std::move(name), {{1, 1, 1, 1}, {1, 1, 1, 1}}, CUDNN_DATA_FLOAT, false, true);
  scalar_ids_.push_back(static_cast<int64_t>(tensor) + 1);
  scalars_.push_back(value);
  return tensor;
}

Graph::Tensor Graph::between(std::string name, const Layout& layout, cudnnDataType_t type) {
  return add(std::move(name), layout, type, true, false);
}

std::string Graph::name_of(std::string_view operation, Tensor y) const {
  return concat(operation, " that gives ", tensors_[y].name());
}

void Graph::pointwise(const Pointwise& operation, Tensor y) {
  Descriptor detail(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, name_of("pointwise", y));
  detail.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &operation.mode);
  detail.set(CUDNN_ATTR_POINTWISE_MATH_PREC, operation.compute);
  if (operation.mode == CUDNN_POINTWISE_GEN_INDEX) detail.set(CUDNN_ATTR_POINTWISE_AXIS, operation.axis);
  detail.finalize();
  Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, name_of("pointwise operation", y));
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, detail);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[operation.x]);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y]);
  if (operation.b != kNone) op.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[operation.b]);
  if (operation.t != kNone) op.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, tensors_[operation.t]);
  const float one = 1.0f;
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, CUDNN_TYPE_FLOAT, 1, &one);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, CUDNN_TYPE_FLOAT, 1, &one);
  op.finalize();
  details_.push_back(std::move(detail));
  operations_.push_back(std::move(op));
}

void Graph::matmul(Tensor a, Tensor b, Tensor c, const Overrides& overrides) {
  Descriptor detail(CUDNN_BACKEND_MATMUL_DESCRIPTOR, name_of("matmul", c));
  detail.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
  detail.finalize();
  Descriptor op(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, name_of("matmul operation", c));
  op.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, tensors_[a]);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, tensors_[b]);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, tensors_[c]);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, detail);
  if (overrides.m != kNone) op.set(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, tensors_[overrides.m]);
  if (overrides.n != kNone) op.set(CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, tensors_[overrides.n]);
  if (overrides.k != kNone) op.set(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, tensors_[overrides.k]);
  op.finalize();
  details_.push_back(std::move(detail));
  operations_.push_back(std::move(op));
}

void Graph::reduce(cudnnReduceTensorOp_t operation, Tensor x, Tensor y) {
  Descriptor detail(CUDNN_BACKEND_REDUCTION_DESCRIPTOR, name_of("reduction", y));
  detail.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  detail.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &operation);
  detail.finalize();
  Descriptor op(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, name_of("reduction operation", y));
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, detail);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_[x]);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_[y]);
  op.finalize();
  details_.push_back(std::move(detail));
  operations_.push_back(std::move(op));
}

void Graph::reshape(Tensor x, Tensor y) {
  Descriptor op(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, name_of("reshape operation", y));
  op.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, tensors_[x]);
  op.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, tensors_[y]);
  op.finalize();
  operations_.push_back(std::move(op));
}

namespace {

/// "engine 5, knobs 24=31 14=2".
std::string engine_of(const Descriptor& config) {
  std::vector<Descriptor> engine, knobs;
  engine.emplace_back(CUDNN_BACKEND_ENGINE_DESCRIPTOR, "engine");
  config.descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  std::string text = concat("engine ", engine.front().integer(CUDNN_ATTR_ENGINE_GLOBAL_INDEX), ", knobs");
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i) knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, "knob");
  const int64_t count = config.descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
  for (size_t i = 0; i < knobs.size() && std::cmp_less(i, count); ++i) {
    cudnnBackendKnobType_t type{};
    int64_t got = 0;
    check(cudnnBackendGetAttribute(knobs[i].raw(), CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &got,
                                   &type),
          "cudnnBackendGetAttribute", "knob");
    text += concat(" ", static_cast<int>(type), "=", knobs[i].integer(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  return text;
}

/// The engines that cuDNN names for a graph, the best first.
std::vector<Descriptor> engines_for(const Descriptor& graph, const Target& target) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "heuristics");
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target.device) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.device);
  heuristics.finalize();
  int64_t count = 0;
  check(cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                 &count, nullptr),
        "cudnnBackendGetAttribute of results", "heuristics");
  std::vector<Descriptor> configs;
  for (int64_t i = 0; i < count; ++i)
    configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, concat("engine configuration ", i));
  count = heuristics.descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, configs);
  configs.erase(configs.begin() + count, configs.end());
  return configs;
}

Plan plan_of(const Descriptor& config, const Target& target, int64_t most_bytes) {
  Plan plan;
  plan.engine = engine_of(config);
  plan.plan = Descriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan for " + plan.engine);
  plan.plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (target.handle) plan.plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  if (target.device) plan.plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.device);
  plan.plan.finalize();
  plan.workspace_bytes = plan.plan.integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
  if (plan.workspace_bytes > most_bytes)
    throw Refusal(concat(plan.engine, " needs ", plan.workspace_bytes, " bytes of workspace; there are ", most_bytes));
  return plan;
}

}  // namespace

Plan Graph::build(const Target& target, int64_t most_bytes) && {
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, concat("graph of ", operations_.size(), " operations"));
  std::vector<cudnnBackendDescriptor_t> operations;
  for (const Descriptor& operation : operations_) operations.push_back(operation.raw());
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::ssize(operations), operations.data());
  if (target.handle) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  graph.finalize();
  std::vector<Descriptor> configs = engines_for(graph, target);
  std::string refused = configs.empty() ? "its heuristics name no engine: " + last_words() : "";
  for (Descriptor& config : configs) {
    try {
      Plan plan = plan_of(config, target, most_bytes);
      for (std::vector<Descriptor>* parts : {&tensors_, &details_, &operations_})
        for (Descriptor& part : *parts) plan.parts.push_back(std::move(part));
      plan.parts.push_back(std::move(graph));
      plan.parts.push_back(std::move(config));
      plan.ids = std::move(memory_ids_);
      plan.ids.insert(plan.ids.end(), scalar_ids_.begin(), scalar_ids_.end());
      plan.scalars = std::move(scalars_);
      return plan;
    } catch (const Refusal& refusal) {
      refused += concat(refused.empty() ? "" : "; ", refusal.what());
    }
  }
  throw Refusal(concat("cuDNN: no plan for ", graph.name(), ": ", refused));
}

void Plan::run(cudnnHandle_t handle, std::vector<void*> addresses, void* workspace) {
  for (float& scalar : scalars) addresses.push_back(&scalar);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "variant pack");
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::ssize(addresses), addresses.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, std::ssize(ids), ids.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  pack.finalize();
  check(cudnnBackendExecute(handle, plan.raw(), pack.raw()), "cudnnBackendExecute", engine);
}

}  // namespace permafrost::cuda::cudnn
