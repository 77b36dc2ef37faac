#include "launch/training/plan_setup.h"

#include <algorithm>
#include <cmath>

#include "core/base/narrow.h"
#include "core/device/cpu_features.h"
#include "core/weights/match.h"
#include "launch/training/best_so_far.h"
#include "models/weight_names.h"

namespace permafrost {

DeviceKind program_device(const config::Config& config) {
  return config.parallel().device() == config::Parallel::CUDA ? DeviceKind::kCuda : DeviceKind::kCpu;
}

DType compute_dtype(const config::Config& config) {
  const bool capable = cpu_features().avx512_bf16 || program_device(config) == DeviceKind::kCuda;
  switch (config.precision().compute()) {
    case config::Compute::AUTO:
      return capable ? DType::kBF16 : DType::kF32;
    case config::Compute::FP32:
      return DType::kF32;
    case config::Compute::FP16:
      if (program_device(config) == DeviceKind::kCuda) return DType::kF16;
      fail(ErrorKind::kConfig, "precision.compute: FP16 needs parallel.device=CUDA; got ",
           config::Parallel::Device_Name(config.parallel().device()), "; use BF16 or FP32, or AUTO, on a CPU");
    case config::Compute::BF16:
      break;
  }
  if (!capable)
    fail(ErrorKind::kConfig, "precision.compute: BF16 needs a processor with avx512_bf16; got ",
         to_string(cpu_features()), "; use FP32, or AUTO to choose by processor");
  return DType::kBF16;
}

std::optional<LossScaleConfig> loss_scale_config(const config::Config& config, DType compute) {
  if (compute != DType::kF16) return std::nullopt;
  const config::LossScale& scale = config.precision().loss_scale();
  return LossScaleConfig{std::ilogb(scale.initial()), scale.growth_steps()};
}

namespace {

bool keeps_file_dtypes(const config::Config& config, DType compute) {
  using Storage = config::FrozenStorage;
  const Storage::Kind kind = config.precision().frozen_storage();
  return compute == DType::kF32 && (kind == Storage::FOLLOW || kind == Storage::FILE);
}

/// Published files: OPT in f16, ViT in f32.
DType published_dtype(const std::string& name) { return name.starts_with("text.") ? DType::kF16 : DType::kF32; }

DType stored_as(const config::Config& config, DType compute, const std::map<std::string, DType>& files,
                const std::string& name, bool random) {
  if (keeps_file_dtypes(config, compute)) {
    const auto found = files.find(name);
    if (found != files.end()) return found->second == DType::kF64 ? DType::kF32 : found->second;
    return random ? DType::kF32 : published_dtype(name);
  }
  if (config.precision().frozen_storage() == config::FrozenStorage::BF16) return DType::kBF16;
  return compute;
}

void add_dtypes(const std::string& path, const PartWeights& part, std::map<std::string, DType>& dtypes,
                const Graph& graph) {
  if (path.empty()) return;
  const WeightSource source = WeightSource::open(path);
  const LoadReport report = match_parameters(part.required, source, part.rules);
  for (size_t i = 0; i < part.params.size(); ++i)
    dtypes[graph.params()[static_cast<size_t>(part.params[i])].name] = report.matches[i].tensor->stored.dtype.value();
}

}  // namespace

std::map<std::string, DType> file_dtypes(const config::Config& config, const Graph& graph) {
  std::map<std::string, DType> dtypes;
  if (!keeps_file_dtypes(config, graph.compute())) return dtypes;
  add_dtypes(config.weights().vision(), vision_weights(graph), dtypes, graph);
  add_dtypes(config.weights().text(), text_weights(graph), dtypes, graph);
  return dtypes;
}

namespace {

PolicyChoice policy_choice(config::Parallel::FrozenPolicy policy) {
  switch (policy) {
    case config::Parallel::AUTO:
      return PolicyChoice::kAuto;
    case config::Parallel::RESIDENT:
      return PolicyChoice::kResident;
    case config::Parallel::SHARDED:
      break;
  }
  return PolicyChoice::kSharded;
}

GatherChoice gather_choice(config::Parallel::Gather gather) {
  switch (gather) {
    case config::Parallel::GATHER_AUTO:
      return GatherChoice::kAuto;
    case config::Parallel::IN_PLACE:
      return GatherChoice::kInPlace;
    case config::Parallel::COPY:
      return GatherChoice::kCopy;
    case config::Parallel::INLINE:
      return GatherChoice::kInline;
    case config::Parallel::PREFETCH:
      break;
  }
  return GatherChoice::kPrefetch;
}

}  // namespace

namespace {

/// Text lengths that get a program each; one program for a model without text.
std::vector<int64_t> plan_buckets(const config::Config& config, const Model& model) {
  if (model.vocab() == 0) return {1};
  std::vector<int64_t> buckets(config.data().length_buckets().begin(), config.data().length_buckets().end());
  if (buckets.empty()) buckets.push_back(config.data().max_text_tokens());
  return buckets;
}

}  // namespace

int64_t node_memory_limit(const config::Config& config, const PlanChoices& choices) {
  const int64_t limit = config.parallel().memory_limit_bytes();
  return limit > 0 ? limit : choices.node_memory_bytes;
}

PlanRequest plan_request(const config::Config& config, const PlanChoices& choices) {
  PlanRequest request;
  const std::shared_ptr<const Model> model = make_model(config);
  const DType compute = compute_dtype(config);
  const int64_t micro_batch = config.train().micro_batch();
  request.build_graph = [model, compute, micro_batch](int64_t tokens) {
    return model->build(compute, {micro_batch, tokens, false});
  };
  request.buckets = plan_buckets(config, *model);
  request.freezing = freeze_rules(config);
  request.world = choices.world;
  request.micro_batches = div_exact(config.train().global_batch(), micro_batch);
  request.prefetched_inputs = config.data().prefetch() + 1;  // and the one the trainer reads from
  if (config.validation().every_steps() > 0 && !is_generated(config.validation().metric()))  // has a loader of its own
    request.prefetched_inputs += config.evaluation().data().prefetch() + 2;
  request.reduction =
      config.parallel().reduction() == config::Parallel::PLAIN ? Reduction::kPlain : Reduction::kOrderFree;
  for (const auto& rule : config.parallel().policies())
    request.policies.push_back({rule.unit(), policy_choice(rule.policy())});
  request.frozen_policy = policy_choice(config.parallel().frozen_policy());
  request.device_collectives = config.parallel().collectives() == config::Parallel::NCCL;
  request.gather = gather_choice(config.parallel().gather());
  request.node_memory_bytes = node_memory_limit(config, choices);
  request.device_memory_bytes = choices.device_memory_bytes;
  request.process_bytes = process_constant_bytes(choices.world.device);
  request.options = choices.program;
  request.options.reuse_memory = config.parallel().reuse_buffers();
  const auto files = choices.read_files ? file_dtypes(config, request.build_graph(request.buckets.front()))
                                        : std::map<std::string, DType>();
  request.frozen_dtype = [config, compute, files, read = choices.read_files](const ParamInfo& param) {
    return stored_as(config, compute, files, param.name, read);
  };
  return request;
}

namespace {

bool all_sharded(const Plan& plan) {
  return std::ranges::all_of(plan.frozen_units, [](const FrozenUnit& unit) { return unit.sharded || unit.bytes == 0; });
}

std::string items_per_rank(const Plan& plan) {
  if (plan.world.device == DeviceKind::kCuda)
    return concat("working ", gib_text(plan.host_memory.working), ", inputs ", gib_text(plan.host_memory.inputs),
                  ", staging ", gib_text(plan.host_memory.staging));
  const MemoryPlan& m = plan.memory;
  return concat("slots ", gib_text(m.slots), ", arena ", gib_text(m.arena), ", optimizer ", gib_text(m.optimizer),
                ", sums ", gib_text(m.sums), ", inputs ", gib_text(m.inputs), ", working ", gib_text(m.working));
}

/// Of the host's memory.
std::string ways_out(const Plan& plan) {
  return plan.world.device == DeviceKind::kCuda
             ? "a smaller train.micro_batch or data.prefetch shrinks inputs, bf16 compute halves frozen weights, fewer "
               "trainable parameters shrink staging"
             : "a smaller train.micro_batch shrinks arena and inputs, bf16 compute halves frozen weights, fewer "
               "trainable parameters shrink optimizer and sums, fewer ranks per node have fewer arenas";
}
}  // namespace

void check_memory(const Plan& plan, int64_t available_bytes) {
  const int64_t ranks = plan.world.most_ranks_of_a_node();
  const int64_t needed = plan.host_bytes_of_node() + ranks * process_constant_bytes(plan.world.device);
  if (needed <= available_bytes) return;
  fail(ErrorKind::kConfig, "memory: ", ranks, " ranks of a node need ", gib_text(needed), "; got ",
       gib_text(available_bytes), ", short by ", gib_text(needed - available_bytes),
       ". Frozen weights, once per node: ", gib_text(plan.memory.node_frozen), ". Per rank: ", items_per_rank(plan),
       ". Ways out: ", ways_out(plan),
       plan.world.nodes == 1 ? ", more nodes divide frozen weights (parallel.frozen_policy SHARDED)"
       : all_sharded(plan)   ? ", more nodes divide frozen weights further"
                             : ", parallel.frozen_policy SHARDED divides frozen weights among nodes");
}

}  // namespace permafrost
