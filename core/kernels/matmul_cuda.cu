#include "core/kernels/matmul_cuda.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/device/cuda_launch.h"
#include "core/kernels/plain_matmul_cuda.h"

namespace permafrost::cuda {

namespace {

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::kInternal, "cuda: ", call, ": ", cublasLtGetStatusName(status), ": ",
         cublasLtGetStatusString(status));
}
#define PERMAFROST_CUBLAS(call) check((call), #call)

/// Bytes, at most 16: no load or store is wider, and where a buffer happens to lie beyond that must not matter.
int64_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p) | 16;
  return static_cast<int64_t>(address & (~address + 1));
}

/// Without `add`: the same algorithm either way, so that a sum that is added is the one that would be written.
ProductKey key_of(const MatrixProduct& p, bool tf32) {
  return {.pass = p.pass,
          .rows = p.rows,
          .columns = p.columns,
          .terms = p.terms,
          .lda = p.a.ld,
          .ldb = p.b.ld,
          .ldd = p.ldd,
          .inputs = p.inputs,
          .output = p.output,
          .transposed_a = p.a.transposed,
          .transposed_b = p.b.transposed,
          .bias = p.bias != nullptr,
          .tf32 = tf32 && p.inputs == DType::kF32,
          .alignment_a = alignment_of(p.a.data),
          .alignment_b = alignment_of(p.b.data),
          .alignment_d = alignment_of(p.d)};
}

cudaDataType data_type(DType dtype) {
  if (dtype == DType::kF32) return CUDA_R_32F;
  if (dtype == DType::kBF16) return CUDA_R_16BF;
  if (dtype == DType::kF16) return CUDA_R_16F;
  fail(ErrorKind::kInternal, "cuda: no products of dtype ", to_string(dtype));
}

struct Destroy {
  void operator()(cublasLtMatmulDesc_t p) const { cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayout_t p) const { cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreference_t p) const { cublasLtMatmulPreferenceDestroy(p); }
};
template <typename Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;
using Descriptor = Owned<cublasLtMatmulDesc_t>;
using Layout = Owned<cublasLtMatrixLayout_t>;
using Preference = Owned<cublasLtMatmulPreference_t>;

template <typename T>
void set(const Descriptor& descriptor, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  PERMAFROST_CUBLAS(cublasLtMatmulDescSetAttribute(descriptor.get(), attribute, &value, sizeof(value)));
}
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  PERMAFROST_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)));
}

struct Candidate {
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;      ///< that it needs, in bytes
  ProductAlgorithm told;     ///< its attributes
  bool can_be_told = false;  ///< they are all there is to it
};

struct Plan {
  Descriptor descriptor;
  Layout a, b, d;
  std::vector<Candidate> candidates;  ///< none: the product is computed by plain_multiply
  size_t chosen = 0;
  bool tuned = false;
  bool given = false;  ///< by use_matmul_choices
};

struct Products {
  cublasLtHandle_t handle = nullptr;
  std::map<ProductKey, Plan> plans;
  bool tuning = false;
  ~Products() {
    plans.clear();
    if (handle) cublasLtDestroy(handle);
  }
};

Products& products_of(const Context& context) {
  Queue& queue = queue_of(context);
  if (!queue.matmul) {
    PERMAFROST_CUDA(cudaSetDevice(queue.device));
    auto products = std::make_unique<Products>();
    PERMAFROST_CUBLAS(cublasLtCreate(&products->handle));
    queue.matmul = products.release();
    queue.destroy_matmul = [](void* kept) { delete static_cast<Products*>(kept); };
  }
  return *static_cast<Products*>(queue.matmul);
}

// Parts of a sum may be computed beside each other only where they are kept in f32 and added up by a step of their own,
// in order. In place, they would be rounded to the output's dtype between one and the next.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
constexpr int kCandidates = 8;

/// body(name, number, bytes) for each attribute but the id.
template <typename Algorithm, typename Body>
void each_attribute(Algorithm& told, Body&& body) {
  body(CUBLASLT_ALGO_CONFIG_TILE_ID, told.tile, 4);
  body(CUBLASLT_ALGO_CONFIG_STAGES_ID, told.stages, 4);
  body(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, told.split, 4);
  body(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, told.reduction, 4);
  body(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, told.swizzle, 4);
  body(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, told.option, 4);
  body(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, told.inner, 2);
  body(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, told.cluster, 2);
}

/// 0 where the algorithm has no such thing.
int64_t get(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t name, size_t bytes) {
  uint32_t value = 0;
  size_t written = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoConfigGetAttribute(&algorithm, name, &value, bytes, &written);
  return status == CUBLAS_STATUS_SUCCESS ? static_cast<int64_t>(value) : 0;  // little endian
}

ProductAlgorithm attributes_of(const cublasLtMatmulAlgo_t& algorithm) {
  ProductAlgorithm told;
  told.id = get(algorithm, CUBLASLT_ALGO_CONFIG_ID, 4);
  each_attribute(told, [&](cublasLtMatmulAlgoConfigAttributes_t name, int64_t& number, size_t bytes) {
    number = get(algorithm, name, bytes);
  });
  return told;
}

cublasComputeType_t compute_type(const ProductKey& key) {
  return key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

/// The algorithm that has these attributes, where the library takes it for this product.
cublasStatus_t rebuild(const Products& products, const Plan& plan, const ProductKey& key, const ProductAlgorithm& told,
                       Candidate& to) {
  if ((told.reduction & ~int64_t{kReductions}) != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  const cudaDataType in = data_type(key.inputs), out = data_type(key.output);
  const auto id = static_cast<int32_t>(told.id);
  if (id != told.id) return CUBLAS_STATUS_INVALID_VALUE;
  cublasStatus_t status =
      cublasLtMatmulAlgoInit(products.handle, compute_type(key), CUDA_R_32F, in, in, out, out, id, &to.algorithm);
  each_attribute(told, [&](cublasLtMatmulAlgoConfigAttributes_t name, int64_t wanted, size_t bytes) {
    if (status != CUBLAS_STATUS_SUCCESS || get(to.algorithm, name, bytes) == wanted) return;  // or it has no such thing
    const auto value = static_cast<uint32_t>(wanted);
    status = wanted < 0 || wanted >> (8 * bytes) != 0
                 ? CUBLAS_STATUS_INVALID_VALUE
                 : cublasLtMatmulAlgoConfigSetAttribute(&to.algorithm, name, &value, bytes);
  });
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  cublasLtMatmulHeuristicResult_t result{};
  status = cublasLtMatmulAlgoCheck(products.handle, plan.descriptor.get(), plan.a.get(), plan.b.get(), plan.d.get(),
                                   plan.d.get(), &to.algorithm, &result);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  to.workspace = result.workspaceSize;
  to.told = attributes_of(to.algorithm);
  to.can_be_told = to.told == told;
  const bool fits = to.workspace <= static_cast<size_t>(matmul_workspace_bytes(key.rows, key.columns));
  return fits && to.can_be_told ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/// In the order of heuristics; none where they know none.
std::vector<Candidate> candidates_of(const Products& products, const Plan& plan, const ProductKey& key) {
  cublasLtMatmulPreference_t created = nullptr;
  PERMAFROST_CUBLAS(cublasLtMatmulPreferenceCreate(&created));
  const Preference preference(created);
  const auto workspace = static_cast<uint64_t>(matmul_workspace_bytes(key.rows, key.columns));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
  const auto alignment = [](int64_t bytes) { return static_cast<uint32_t>(bytes); };
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(key.alignment_a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(key.alignment_b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(key.alignment_d));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(key.alignment_d));
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(products.handle, plan.descriptor.get(), plan.a.get(), plan.b.get(), plan.d.get(),
                                     plan.d.get(), preference.get(), kCandidates, found.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::kInternal, "cuda: cuBLASLt ", cublasLtGetVersion(), " must name algorithms for ", to_string(key),
         "; got ", cublasLtGetStatusName(status), ": ", cublasLtGetStatusString(status));
  std::vector<Candidate> candidates;
  for (int i = 0; i < count; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = found[static_cast<size_t>(i)];
    const ProductAlgorithm told = attributes_of(result.algo);
    if (result.state != CUBLAS_STATUS_SUCCESS || result.workspaceSize > workspace ||
        (told.reduction & ~int64_t{kReductions}) != 0)
      continue;
    // What runs is what its attributes say, also before they were ever stored.
    Candidate rebuilt;
    const bool same = rebuild(products, plan, key, told, rebuilt) == CUBLAS_STATUS_SUCCESS;
    candidates.push_back(same ? rebuilt : Candidate{result.algo, result.workspaceSize, told, false});
  }
  return candidates;
}

Layout make_layout(DType dtype, int64_t rows, int64_t columns, int64_t ld) {
  cublasLtMatrixLayout_t layout = nullptr;
  PERMAFROST_CUBLAS(cublasLtMatrixLayoutCreate(&layout, data_type(dtype), static_cast<uint64_t>(rows),
                                               static_cast<uint64_t>(columns), ld));
  return Layout(layout);
}

/// All but its candidates.
Plan make_descriptors(const ProductKey& key) {
  Plan plan;
  cublasLtMatmulDesc_t descriptor = nullptr;
  PERMAFROST_CUBLAS(cublasLtMatmulDescCreate(&descriptor, compute_type(key), CUDA_R_32F));
  plan.descriptor.reset(descriptor);
  set(plan.descriptor, CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(key.transposed_a ? CUBLAS_OP_T : CUBLAS_OP_N));
  set(plan.descriptor, CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(key.transposed_b ? CUBLAS_OP_T : CUBLAS_OP_N));
  const uint32_t epilogue = key.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  set(plan.descriptor, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  if (key.bias) {
    set(plan.descriptor, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(data_type(key.output)));
    // Heuristics look at its alignment alone, and must not see that of the bias that comes first.
    const void* aligned_to_16 = reinterpret_cast<const void*>(uintptr_t{16});
    set(plan.descriptor, CUBLASLT_MATMUL_DESC_BIAS_POINTER, aligned_to_16);
  }
  plan.a = key.transposed_a ? make_layout(key.inputs, key.terms, key.rows, key.lda)
                            : make_layout(key.inputs, key.rows, key.terms, key.lda);
  plan.b = key.transposed_b ? make_layout(key.inputs, key.columns, key.terms, key.ldb)
                            : make_layout(key.inputs, key.terms, key.columns, key.ldb);
  plan.d = make_layout(key.output, key.rows, key.columns, key.ldd);
  return plan;
}

Plan make_plan(const Products& products, const ProductKey& key) {
  Plan plan = make_descriptors(key);
  plan.candidates = candidates_of(products, plan, key);
  return plan;
}

cublasStatus_t start(const Context& context, const Products& products, const Plan& plan, const MatrixProduct& product,
                     size_t candidate, std::byte* workspace) {
  const float alpha = 1, beta = product.add ? 1 : 0;
  return cublasLtMatmul(
      products.handle, plan.descriptor.get(), &alpha, product.a.data, plan.a.get(), product.b.data, plan.b.get(), &beta,
      product.d, plan.d.get(), product.d, plan.d.get(), &plan.candidates[candidate].algorithm, workspace,
      static_cast<size_t>(matmul_workspace_bytes(product.rows, product.columns)), queue_of(context).stream);
}

struct Timer {
  cudaEvent_t begin = nullptr, end = nullptr;
  Timer() {
    PERMAFROST_CUDA(cudaEventCreateWithFlags(&begin, cudaEventDefault));
    const cudaError_t error = cudaEventCreateWithFlags(&end, cudaEventDefault);
    if (error != cudaSuccess) cudaEventDestroy(begin);
    cuda::check(error, "cudaEventCreateWithFlags");
  }
  ~Timer() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
};

/// Milliseconds that `runs` of a candidate take; infinite when it does not run.
float time_of(const Context& context, const Products& products, const Plan& plan, const MatrixProduct& product,
              size_t candidate, int runs, const Timer& timer, std::byte* workspace) {
  cudaStream_t stream = queue_of(context).stream;
  bool well = true;
  PERMAFROST_CUDA(cudaEventRecord(timer.begin, stream));
  for (int run = 0; run < runs && well; ++run)
    well = start(context, products, plan, product, candidate, workspace) == CUBLAS_STATUS_SUCCESS;
  PERMAFROST_CUDA(cudaEventRecord(timer.end, stream));
  PERMAFROST_CUDA(cudaEventSynchronize(timer.end));
  float milliseconds = 0;
  PERMAFROST_CUDA(cudaEventElapsedTime(&milliseconds, timer.begin, timer.end));
  return well ? milliseconds : std::numeric_limits<float>::infinity();
}

/// Of those that can be told to others. The least of a few takes counts, candidate after candidate, so that a clock
/// that rises favours none of them.
void tune(const Context& context, const Products& products, Plan& plan, const MatrixProduct& product,
          std::byte* workspace) {
  constexpr int kTakes = 3, kMostRuns = 32;
  constexpr float kTakeMs = 0.5f, kShortest = 1e-3f, kNever = std::numeric_limits<float>::infinity();
  const Timer timer;
  std::vector<size_t> able;
  float fastest = kNever;
  for (size_t i = 0; i < plan.candidates.size(); ++i) {
    if (!plan.candidates[i].can_be_told) continue;
    time_of(context, products, plan, product, i, 1, timer, workspace);  // loads its code
    const float once = time_of(context, products, plan, product, i, 1, timer, workspace);
    if (once == kNever) continue;
    able.push_back(i);
    fastest = std::min(fastest, once);
  }
  if (able.empty()) return;
  const int runs = std::clamp(static_cast<int>(kTakeMs / std::max(fastest, kShortest)), 1, kMostRuns);
  std::vector<float> least(able.size(), kNever);
  for (int take = 0; take < kTakes && able.size() > 1; ++take)
    for (size_t i = 0; i < able.size(); ++i)
      least[i] = std::min(least[i], time_of(context, products, plan, product, able[i], runs, timer, workspace));
  plan.chosen = able[static_cast<size_t>(std::min_element(least.begin(), least.end()) - least.begin())];
  plan.tuned = true;
}

/// products_of may make what a capture would refuse, so it is asked first.
void require_no_capture(const Context& context) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  PERMAFROST_CUDA(cudaStreamIsCapturing(queue_of(context).stream, &status));
  PERMAFROST_CHECK(status == cudaStreamCaptureStatusNone,
                   "products: the stream must not be captured into a graph while choices are made; got one that is");
}

}  // namespace

void multiply(const Context& context, const MatrixProduct& product, std::byte* workspace) {
  Products& products = products_of(context);
  const ProductKey key = key_of(product, queue_of(context).tf32);
  auto found = products.plans.find(key);
  if (found == products.plans.end()) found = products.plans.emplace(key, make_plan(products, key)).first;
  Plan& plan = found->second;
  if (plan.candidates.empty()) return plain_multiply(context, product);
  if (key.bias) set(plan.descriptor, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  if (products.tuning && !plan.tuned && !plan.given) tune(context, products, plan, product, workspace);
  check(start(context, products, plan, product, plan.chosen, workspace), "cublasLtMatmul");
}

std::string matmul_library() { return concat("cublasLt ", cublasLtGetVersion()); }

std::vector<ProductChoice> matmul_choices(const Context& context) {
  std::vector<ProductChoice> choices;
  for (const auto& [key, plan] : products_of(context).plans) {
    if (plan.candidates.empty())
      choices.push_back({key, {.own = true}, false});
    else if (const Candidate& chosen = plan.candidates[plan.chosen]; chosen.can_be_told)
      choices.push_back({key, chosen.told, plan.tuned});
  }
  return choices;
}

void use_matmul_choices(const Context& context, std::span<const ProductChoice> choices) {
  require_no_capture(context);
  Products& products = products_of(context);
  for (const ProductChoice& choice : choices) {
    Plan plan = make_descriptors(choice.key);
    plan.tuned = choice.tuned;
    plan.given = true;
    if (!choice.algorithm.own) {
      const cublasStatus_t status =
          rebuild(products, plan, choice.key, choice.algorithm, plan.candidates.emplace_back());
      if (status != CUBLAS_STATUS_SUCCESS)
        fail(ErrorKind::kInvalidArgument, "products: ", matmul_library(), " must take the algorithm of ",
             to_string(choice), "; got ", cublasLtGetStatusName(status));
    }
    products.plans.insert_or_assign(choice.key, std::move(plan));
  }
}

void set_matmul_tuning(const Context& context, bool tuning) {
  if (tuning) require_no_capture(context);
  products_of(context).tuning = tuning;
}

}  // namespace permafrost::cuda
