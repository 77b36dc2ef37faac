#include <algorithm>
#include <iostream>

#include "configs/load.h"
#include "core/base/narrow.h"
#include "core/kernels/shape_ops.h"
#include "core/weights/safetensors.h"
#include "launch/commands.h"
#include "launch/gpu.h"
#include "launch/machine.h"
#include "launch/training/device_memory.h"
#include "launch/training/model_weights.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "parallel/group/inproc_group.h"
#include "parallel/group/node/free_memory.h"
#include "parallel/run/executor.h"

namespace permafrost {

namespace {

/// The batch to look at, as another implementation would be given it.
struct ProbeBatch {
  Buffer images;
  std::vector<int32_t> classes;
  std::vector<uint64_t> sample_ids;  // rows count as samples
  ModelBatch model;                  // refers to the others
  int64_t batch = 0, tokens = 1;
};

std::vector<int64_t> read_i64(const SafetensorsReader& file, const std::string& name, const Shape& shape) {
  const StoredTensor& stored = file.at(name);
  if (stored.dtype != DType::kI64 || !(stored.shape == shape))
    fail(ErrorKind::kData, "probe: ", file.path(), ": ", name, " must be ", shape, " I64; got ", stored.shape, " ",
         stored.dtype_name);
  std::vector<int64_t> values(static_cast<size_t>(shape.elements()));
  file.read(name, 0, std::as_writable_bytes(std::span(values)));
  return values;
}

/// Ids and labels as the model takes them: within the vocabulary, and nothing to predict behind a text.
void check_tokens(const std::string& path, const TextBatch& text, const std::vector<int64_t>& ids,
                  const std::vector<int64_t>& labels, int64_t vocab) {
  const auto refuse = [&](const char* name, const std::string& expected, int64_t value, int64_t row, int64_t column) {
    fail(ErrorKind::kData, "probe: ", path, ": ", name, " must be ", expected, "; got ", value, " at (", row, ", ",
         column, ")");
  };
  for (int64_t row = 0; row < text.batch; ++row) {
    for (int64_t t = 0; t < text.tokens; ++t) {
      const auto i = static_cast<size_t>(row * text.tokens + t);
      const bool behind = t >= text.lengths[static_cast<size_t>(row)];
      if (ids[i] < 0 || ids[i] >= vocab) refuse("input_ids", concat("0 to ", vocab - 1), ids[i], row, t);
      if (labels[i] == kIgnoredLabel) continue;
      if (behind) refuse("labels", concat(kIgnoredLabel, " where attention_mask is 0"), labels[i], row, t);
      if (labels[i] < 0 || labels[i] >= vocab)
        refuse("labels", concat("0 to ", vocab - 1, ", or ", kIgnoredLabel), labels[i], row, t);
    }
  }
}

void read_text(const SafetensorsReader& file, int64_t vocab, ProbeBatch& batch) {
  const Shape shape = file.at("input_ids").shape;
  if (shape.rank() != 2 || shape.elements() == 0)
    fail(ErrorKind::kData, "probe: ", file.path(), ": input_ids must be [B,T] with at least one text and token; got ",
         shape);
  TextBatch& text = batch.model.text;
  text.batch = batch.batch = shape[0];
  text.tokens = batch.tokens = shape[1];
  const std::vector<int64_t> ids = read_i64(file, "input_ids", shape), labels = read_i64(file, "labels", shape);
  text.lengths = lengths_of_mask(read_i64(file, "attention_mask", shape), shape[0], shape[1]);
  check_tokens(file.path(), text, ids, labels, vocab);
  for (int64_t id : ids) text.ids.push_back(narrow<int32_t>(id));
  for (int64_t label : labels) text.labels.push_back(narrow<int32_t>(label));
}

void read_classes(const SafetensorsReader& file, const Model& model, ProbeBatch& batch) {
  const Shape shape = file.at("labels").shape;
  if (shape.rank() != 2 || shape[0] < 1 || shape[1] != model.labels())
    fail(ErrorKind::kData, "probe: ", file.path(), ": labels must be [B,", model.labels(),
         "] with at least one image; got ", shape);
  batch.batch = shape[0];
  for (int64_t label : read_i64(file, "labels", shape)) {
    if (label != kIgnoredLabel && (label < 0 || label >= model.classes()))
      fail(ErrorKind::kData, "probe: ", file.path(), ": labels must be 0 to ", model.classes() - 1, ", or ",
           kIgnoredLabel, "; got ", label);
    batch.classes.push_back(static_cast<int32_t>(label));
  }
  batch.model.classes = batch.classes;
}

void read_batch(const std::string& path, const Model& model, ProbeBatch& batch) {
  const SafetensorsReader file(path);
  if (model.vocab() > 0)
    read_text(file, model.vocab(), batch);
  else
    read_classes(file, model, batch);
  if (model.image_size() > 0) {
    const TensorSpec spec{{batch.batch, 3, model.image_size(), model.image_size()}, DType::kF32};
    batch.images = Buffer("probe images", spec.bytes());
    const Tensor images(batch.images.data(), spec);
    file.read_tensor("images", images);
    batch.model.images = {images.data<float>(), static_cast<size_t>(images.elements())};
  }
  for (int64_t row = 0; row < batch.batch; ++row) batch.sample_ids.push_back(static_cast<uint64_t>(row));
  batch.model.sample_ids = batch.sample_ids;
  batch.model.pad_id = kOptPadId;
}

Plan probe_plan(const config::Config& config, int64_t batch, int64_t tokens, bool grads, int threads) {
  PlanChoices choices;
  choices.world.threads = threads;
  choices.world.device = program_device(config);
  choices.program.keep_all_values = true;
  choices.program.keep_gradients = grads;
  choices.program.forward_only = !grads;
  PlanRequest request = plan_request(config, choices);
  const std::shared_ptr<const Model> model = make_model(config);
  const DType compute = compute_dtype(config);
  request.build_graph = [=](int64_t t) { return model->build(compute, {batch, t, true}); };
  request.buckets = {tokens};
  request.micro_batches = 1;
  request.prefetched_inputs = 0;
  request.allow_all_frozen = !grads;
  return make_plan(request);
}

/// Whether the program keeps a value, or a gradient (grad: and a name), of this name.
bool planned(const Plan& plan, std::string_view name) {
  const Graph& graph = plan.graphs[0];
  const Program& program = plan.programs[0];
  const bool gradient = name.starts_with("grad:");
  if (gradient) name.remove_prefix(5);
  if (const int v = graph.find_value(name); v >= 0) {
    const TensorRef& ref = (gradient ? program.value_gradients : program.values)[static_cast<size_t>(v)];
    if (ref.region != Region::kNone) return true;
  }
  const int p = gradient ? graph.find_param(name) : -1;
  return p >= 0 && program.param_gradients[static_cast<size_t>(p)].region != Region::kNone;
}

/// Names and shapes of everything that can be asked for.
void print_list(const Plan& plan) {
  const Graph& graph = plan.graphs[0];
  const Program& program = plan.programs[0];
  for (size_t v = 0; v < graph.values().size(); ++v) {
    const ValueInfo& info = graph.values()[v];
    if (program.values[v].region == Region::kNone || !is_public(graph, static_cast<int>(v))) continue;
    std::cout << info.name << ' ' << info.spec << '\n';
    if (program.value_gradients[v].region != Region::kNone)
      std::cout << "grad:" << info.name << ' ' << program.value_gradients[v].spec << '\n';
  }
  for (const ParamPlan& param : plan.params)
    if (planned(plan, "grad:" + param.name)) std::cout << "grad:" << param.name << ' ' << param.shape << " f32\n";
}

/// Before anything is loaded.
void check_names(const std::vector<std::string>& names, const Plan& plan) {
  std::string missing;
  for (size_t i = 0; i < names.size(); ++i) {
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i))
      fail(ErrorKind::kConfig, "probe: --values must name each value once; got ", names[i], " twice");
    if (!planned(plan, names[i])) missing += (missing.empty() ? "" : ", ") + names[i];
  }
  if (!missing.empty())
    fail(ErrorKind::kConfig,
         "probe: --values must name values of this model (see --list; gradients need --grads and something "
         "trainable upstream); got ",
         missing);
}

Tensor find(const Executor& executor, const std::string& name) {
  if (!name.starts_with("grad:")) return executor.value(0, name);
  const Tensor value = executor.value_gradient(0, name.substr(5));
  return value.defined() ? value : executor.param_gradient(0, name.substr(5));
}

/// Every float dtype is written as f32 (exact), the loss as f64.
void write_values(const std::vector<std::string>& names, const Executor& executor, const std::string& path) {
  std::vector<Tensor> tensors;
  std::vector<TensorDeclaration> declarations;
  for (const std::string& name : names) {
    const Tensor tensor = find(executor, name);
    tensors.push_back(tensor);
    const bool narrow_float = tensor.dtype() == DType::kBF16 || tensor.dtype() == DType::kF16;
    declarations.push_back({name, {tensor.shape(), narrow_float ? DType::kF32 : tensor.dtype()}});
  }
  SafetensorsWriter writer(path, declarations);
  for (size_t i = 0; i < names.size(); ++i) {
    if (declarations[i].spec.dtype == tensors[i].dtype()) {
      writer.write_tensor(names[i], tensors[i]);
      continue;
    }
    const Buffer wide("probe output", declarations[i].spec.bytes());
    const Tensor out(wide.data(), declarations[i].spec);
    accumulate(executor.context(), tensors[i], out, GradMode::kOverwrite);
    writer.write_tensor(names[i], out);
  }
  writer.finish();
}

void fill_inputs(const config::Config& config, const Model& model, const Executor& executor, ProbeBatch& batch) {
  LossCounts counts = count_loss(batch.model.text);
  if (model.labels() > 0)
    counts = {batch.batch, std::ssize(batch.classes) - std::ranges::count(batch.classes, kIgnoredLabel)};
  batch.model.row_weight = loss_weighting(config.loss()).row_weight(counts);
  model.fill(batch.model, [&](std::string_view name) { return executor.value(0, name); });
  if (const Tensor scale = executor.value(0, "loss_scale"); scale.defined()) *scale.data<float>() = 1;
}

}  // namespace

int run_probe(const ProbeOptions& options) {
  const int threads = usable_cores();
  const config::Resolved resolved =
      config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  const config::Config& config = resolved.config;
  const std::unique_ptr<const Model> model = make_model(config);
  if (options.list && options.batch.empty()) {
    print_list(
        probe_plan(config, config.train().micro_batch(), config.data().max_text_tokens(), options.grads, threads));
    return 0;
  }
  if (options.batch.empty()) fail(ErrorKind::kConfig, "probe: --batch FILE is required (or --list)");
  ProbeBatch batch;
  read_batch(options.batch, *model, batch);
  const Plan plan = probe_plan(config, batch.batch, batch.tokens, options.grads, threads);
  if (options.list) {
    print_list(plan);
    return 0;
  }
  if (options.values.empty() || options.out.empty())
    fail(ErrorKind::kConfig, "probe: --values NAME,... and --out FILE are required (or --list)");
  check_names(options.values, plan);
  check_memory(plan, memory_limit_bytes());
  ThreadPool pool(threads);
  const std::unique_ptr<Stream> gpu = open_gpu(plan.world.device);
  check_device_memory(plan, free_device_memory(gpu.get()));
  Context context;
  context.pool = &pool;
  if (gpu) context = {.device = gpu->device(), .pool = nullptr, .stream = *gpu};
  use_f32_products(context, config.precision());
  use_attention(context, config.parallel());
  const StepMemory memory(plan, 0, nullptr, context.device);
  AdamwConfig none;
  ShardedAdamw masters(plan, 0, none);
  const auto alone = make_solo_group();
  for (const std::string& line :
       load_model_weights(config, plan, memory.frozen_share(), masters, *alone, *alone, pool).lines)
    std::cerr << line << '\n';
  masters.refresh_working(memory);
  memory.upload_frozen(context);
  memory.upload_working(context);
  Executor executor(plan, memory, context);
  fill_inputs(config, *model, executor, batch);
  executor.run(0, nullptr);
  write_values(options.values, executor, options.out);
  return 0;
}

}  // namespace permafrost
