#include "core/kernels/matmul_cuda.h"

#include <cublasLt.h>

#include <array>
#include <compare>
#include <limits>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/device/cuda_launch.h"

namespace permafrost::cuda {

namespace {

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::kInternal, "cuda: ", call, ": ", cublasLtGetStatusName(status), ": ",
         cublasLtGetStatusString(status));
}
#define PERMAFROST_CUBLAS(call) check((call), #call)

/// What a choice depends on. Without `add`: the same algorithm either way, so that a sum that is added is the one that
/// would be written.
struct Key {
  LinearPass pass;
  int64_t rows, columns, terms, lda, ldb, ldd;
  DType inputs, output;
  bool transposed_a, transposed_b, bias, tf32;
  uint32_t alignment_a, alignment_b, alignment_d;
  auto operator<=>(const Key&) const = default;
};

/// Bytes, at most 16: no load or store is wider, and where a buffer happens to lie beyond that must not matter.
uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p) | 16;
  return static_cast<uint32_t>(address & (~address + 1));
}

Key key_of(const MatrixProduct& p, bool tf32) {
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

/// Of a chosen algorithm; 0 where it has no such thing.
template <typename T>
T config(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  size_t written = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), &written);
  return status == CUBLAS_STATUS_SUCCESS ? value : T{};
}

struct Candidate {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;  ///< that it needs, in bytes
};

struct Plan {
  Descriptor descriptor;
  Layout a, b, d;
  std::vector<Candidate> candidates;
  size_t chosen = 0;
  bool tuned = false;
};

struct Products {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
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

std::string describe(const Key& key) {
  const bool forward = key.pass == LinearPass::kForward, input = key.pass == LinearPass::kBackwardInput;
  // Back from rows, columns and terms to what a linear layer calls them.
  const int64_t m = forward || input ? key.columns : key.terms;
  const int64_t n = forward ? key.rows : input ? key.terms : key.columns;
  const int64_t k = forward ? key.terms : key.rows;
  std::string text = concat(forward ? "forward"
                            : input ? "backward_input"
                                    : "backward_weight",
                            " m=", m, " n=", n, " k=", k, " ", to_string(key.inputs), "->", to_string(key.output));
  if (key.tf32) text += " tf32";
  if (key.bias) text += " bias";
  return text + concat(" ld=", key.lda, ",", key.ldb, ",", key.ldd, " align=", key.alignment_a, ",", key.alignment_b,
                       ",", key.alignment_d);
}

std::string describe(const Candidate& choice) {
  const cublasLtMatmulAlgo_t& a = choice.algorithm;
  return concat("algorithm=", config<int32_t>(a, CUBLASLT_ALGO_CONFIG_ID),
                " tile=", config<uint32_t>(a, CUBLASLT_ALGO_CONFIG_TILE_ID),
                " stages=", config<uint32_t>(a, CUBLASLT_ALGO_CONFIG_STAGES_ID),
                " split=", config<int32_t>(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
                " reduction=", config<uint32_t>(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
                " swizzle=", config<uint32_t>(a, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING),
                " option=", config<uint32_t>(a, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
                " inner=", config<uint16_t>(a, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
                " cluster=", config<uint16_t>(a, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID),
                " workspace=", choice.workspace);
}

// Parts of a sum may be computed beside each other only where they are kept in f32 and added up by a step of their own,
// in order. In place, they would be rounded to the output's dtype between one and the next.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
constexpr int kCandidates = 8;

std::vector<Candidate> candidates_of(const Products& products, const Plan& plan, const Key& key) {
  cublasLtMatmulPreference_t created = nullptr;
  PERMAFROST_CUBLAS(cublasLtMatmulPreferenceCreate(&created));
  const Preference preference(created);
  const auto workspace = static_cast<uint64_t>(matmul_workspace_bytes(key.rows, key.columns));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment_a);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment_b);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment_d);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment_d);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(products.handle, plan.descriptor.get(), plan.a.get(), plan.b.get(), plan.d.get(),
                                     plan.d.get(), preference.get(), kCandidates, found.data(), &count);
  std::vector<Candidate> candidates;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = found[static_cast<size_t>(i)];
    const auto reduction = config<uint32_t>(result.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    if (result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= workspace && (reduction & ~kReductions) == 0)
      candidates.push_back({result.algo, result.workspaceSize});
  }
  if (candidates.empty())
    fail(ErrorKind::kInternal, "cuda: cuBLASLt ", cublasLtGetVersion(), " has no algorithm for ", describe(key), ": ",
         cublasLtGetStatusName(status));
  return candidates;
}

Layout make_layout(DType dtype, int64_t rows, int64_t columns, int64_t ld) {
  cublasLtMatrixLayout_t layout = nullptr;
  PERMAFROST_CUBLAS(cublasLtMatrixLayoutCreate(&layout, data_type(dtype), static_cast<uint64_t>(rows),
                                               static_cast<uint64_t>(columns), ld));
  return Layout(layout);
}

Plan make_plan(const Products& products, const Key& key) {
  Plan plan;
  cublasLtMatmulDesc_t descriptor = nullptr;
  PERMAFROST_CUBLAS(
      cublasLtMatmulDescCreate(&descriptor, key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
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

/// The least of a few takes counts, candidate after candidate, so that a clock that rises favours none of them.
void tune(const Context& context, const Products& products, Plan& plan, const MatrixProduct& product,
          std::byte* workspace) {
  constexpr int kTakes = 4, kRuns = 5;  // the first take warms up
  constexpr float kNever = std::numeric_limits<float>::infinity();
  const Timer timer;
  cudaStream_t stream = queue_of(context).stream;
  std::vector<float> least(plan.candidates.size(), kNever);
  std::vector<bool> runs(plan.candidates.size(), true);
  for (int take = 0; take < kTakes; ++take)
    for (size_t i = 0; i < least.size(); ++i) {
      PERMAFROST_CUDA(cudaEventRecord(timer.begin, stream));
      for (int run = 0; run < kRuns && runs[i]; ++run)
        runs[i] = start(context, products, plan, product, i, workspace) == CUBLAS_STATUS_SUCCESS;
      PERMAFROST_CUDA(cudaEventRecord(timer.end, stream));
      PERMAFROST_CUDA(cudaEventSynchronize(timer.end));
      float milliseconds = 0;
      PERMAFROST_CUDA(cudaEventElapsedTime(&milliseconds, timer.begin, timer.end));
      if (take > 0 && runs[i]) least[i] = std::min(least[i], milliseconds);
    }
  plan.chosen = static_cast<size_t>(std::min_element(least.begin(), least.end()) - least.begin());
  plan.tuned = true;
}

}  // namespace

void multiply(const Context& context, const MatrixProduct& product, std::byte* workspace) {
  Products& products = products_of(context);
  const Key key = key_of(product, queue_of(context).tf32);
  auto found = products.plans.find(key);
  if (found == products.plans.end()) found = products.plans.emplace(key, make_plan(products, key)).first;
  Plan& plan = found->second;
  if (key.bias) set(plan.descriptor, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  if (products.tuning && !plan.tuned) tune(context, products, plan, product, workspace);
  check(start(context, products, plan, product, plan.chosen, workspace), "cublasLtMatmul");
}

namespace {
/// products_of may make what a capture would refuse, so it is asked first.
void require_no_capture(const Context& context) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  PERMAFROST_CUDA(cudaStreamIsCapturing(queue_of(context).stream, &status));
  PERMAFROST_CHECK(status == cudaStreamCaptureStatusNone,
                   "tune_linear: the stream must not be captured into a graph meanwhile; got one that is");
}
}  // namespace

TuningScope::TuningScope(const Context& context) : tuning_((require_no_capture(context), products_of(context).tuning)) {
  tuning_ = true;
}

TuningScope::~TuningScope() { tuning_ = false; }

std::string matmul_choices(const Context& context) {
  std::string text = concat("cublasLt ", cublasLtGetVersion(), "\n");
  for (const auto& [key, plan] : products_of(context).plans)
    text += concat(describe(key), ": ", describe(plan.candidates[plan.chosen]), plan.tuned ? " tuned" : " first", "\n");
  return text;
}

}  // namespace permafrost::cuda
