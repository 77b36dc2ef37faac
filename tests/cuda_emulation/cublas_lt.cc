// Products of cuBLASLt, one sum after the other.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tensor/dtype.h"
#include "tests/cuda_emulation/cublasLt.h"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType scale;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int32_t bias_type = -1;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256};
};

namespace {

using Descriptor = cublasLtMatmulDescOpaque_t;
using Layout = cublasLtMatrixLayoutOpaque_t;

/// What stands in a cublasLtMatmulAlgo_t.
struct Algorithm {
  int32_t id, split;
  uint32_t reduction;
  uint16_t alignment[5];  // of A, B, C, D and the bias
  uint64_t rows, columns, terms;
  uint64_t workspace;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

// In the order in which heuristics name them, with the time each takes: the second is the fastest that adds up in a
// fixed order and precision.
struct Kind {
  int32_t split;
  uint32_t reduction;
  double milliseconds;
};
constexpr Kind kKinds[] = {{1, CUBLASLT_REDUCTION_SCHEME_NONE, 3},
                           {3, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2},
                           {2, CUBLASLT_REDUCTION_SCHEME_INPLACE, 1},
                           {2, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 1}};

size_t bytes_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }
bool is_aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

template <typename T>
cublasStatus_t take(T& to, const void* from, size_t bytes) {
  if (!from || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

uint64_t terms_of(const Descriptor& descriptor, const Layout& a) {
  return descriptor.transpose_a == CUBLAS_OP_T ? a.rows : a.columns;
}

cublasStatus_t check(const Descriptor* o, const Layout* a, const Layout* b, const Layout* c, const Layout* d) {
  if (!o || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout* layout : {a, b, c, d}) {
    if (layout->rows == 0 || layout->columns == 0 || layout->ld < static_cast<int64_t>(layout->rows))
      return CUBLAS_STATUS_INVALID_VALUE;
    if (layout->rows > INT32_MAX || layout->columns > INT32_MAX) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool ta = o->transpose_a == CUBLAS_OP_T, tb = o->transpose_b == CUBLAS_OP_T;
  if ((ta ? a->columns : a->rows) != d->rows || (tb ? b->rows : b->columns) != d->columns ||
      (tb ? b->columns : b->rows) != terms_of(*o, *a))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c->rows != d->rows || c->columns != d->columns || c->ld != d->ld) return CUBLAS_STATUS_INVALID_VALUE;
  // Rows of the documentation's table of types: A and B alike, C and D alike, D of their type or f32.
  if (a->type != b->type || c->type != d->type || o->scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (d->type != a->type && d->type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (o->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a->type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if ((o->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
    if (!o->bias) return CUBLAS_STATUS_INVALID_VALUE;
    // "Bias vector elements are the same type as the elements of output matrix", but for fp8 and integers.
    if (o->bias_type != -1 && o->bias_type != static_cast<int32_t>(d->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!is_aligned(o->bias, 16)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

float stored(const void* p, cudaDataType type, int64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(p)[i];
  if (type == CUDA_R_16F) return static_cast<float>(static_cast<const permafrost::float16*>(p)[i]);
  return static_cast<float>(static_cast<const permafrost::bfloat16*>(p)[i]);
}

/// To 11 significant bits, to nearest, ties away from zero.
float to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  return __uint_as_float((__float_as_uint(x) + 0x1000u) & ~0x1fffu);
}

/// op(matrix), its terms beside each other.
std::vector<float> gathered(const void* p, const Layout& layout, bool terms_are_rows, bool tf32) {
  std::vector<float> values;
  values.reserve(layout.rows * layout.columns);
  const uint64_t outer = terms_are_rows ? layout.columns : layout.rows;
  const uint64_t terms = terms_are_rows ? layout.rows : layout.columns;
  for (uint64_t i = 0; i < outer; ++i)
    for (uint64_t r = 0; r < terms; ++r) {
      const auto row = static_cast<int64_t>(terms_are_rows ? r : i),
                 column = static_cast<int64_t>(terms_are_rows ? i : r);
      const float value = stored(p, layout.type, row + column * layout.ld);
      values.push_back(tf32 ? to_tf32(value) : value);
    }
  return values;
}

float sum_of(const float* a, const float* b, uint64_t terms, int32_t split) {
  const auto parts = static_cast<uint64_t>(split);
  float total = 0;
  for (uint64_t part = 0; part < parts; ++part) {
    float sum = 0;
    for (uint64_t r = terms * part / parts; r < terms * (part + 1) / parts; ++r) sum = std::fma(a[r], b[r], sum);
    total += sum;
  }
  return total;
}

Algorithm algorithm_of(const cublasLtMatmulAlgo_t& algo) {
  Algorithm algorithm;
  std::memcpy(&algorithm, algo.data, sizeof(algorithm));
  return algorithm;
}

}  // namespace

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown";
}
const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }
size_t cublasLtGetVersion() { return 0; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return *handle = new cublasLtContext, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return delete handle, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *descriptor = new Descriptor{.compute = compute, .scale = scale};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p) { return delete p, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(p->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(p->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(p->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(p->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(p->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  return *layout = new Layout{type, rows, columns, ld}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t p) { return delete p, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return *preference = new cublasLtMatmulPreferenceOpaque_t, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return delete p, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return take(p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return take(p->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return take(p->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t o, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = 0;
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (requested <= 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (const cublasStatus_t status = check(o, a, b, c, d); status != CUBLAS_STATUS_SUCCESS) return status;
  const Layout* layouts[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (preference->alignment[i] % bytes_of(layouts[i]->type) != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool bias = (o->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
  for (int32_t id = 0; id < static_cast<int32_t>(std::size(kKinds)) && *returned < requested; ++id) {
    const Kind& kind = kKinds[id];
    if (kind.reduction != 0 && (kind.reduction & preference->reductions) == 0) continue;
    Algorithm algorithm{
        .id = id,
        .split = kind.split,
        .reduction = kind.reduction,
        .alignment = {},
        .rows = d->rows,
        .columns = d->columns,
        .terms = terms_of(*o, *a),
        .workspace = kind.split == 1 ? 0 : static_cast<uint64_t>(kind.split) * d->rows * d->columns * 4};
    if (algorithm.terms < static_cast<uint64_t>(kind.split) || algorithm.workspace > preference->workspace) continue;
    for (int i = 0; i < 4; ++i) algorithm.alignment[i] = static_cast<uint16_t>(preference->alignment[i]);
    algorithm.alignment[4] = bias ? 16 : 1;
    cublasLtMatmulHeuristicResult_t& result = results[(*returned)++];
    result = {.algo = {},
              .workspaceSize = algorithm.workspace,
              .state = CUBLAS_STATUS_SUCCESS,
              .wavesCount = 1,
              .reserved = {}};
    std::memcpy(result.algo.data, &algorithm, sizeof(algorithm));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  const Algorithm algorithm = algorithm_of(*algo);
  uint32_t number = 0;
  size_t size = sizeof(number);
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID:
      number = static_cast<uint32_t>(algorithm.id);
      break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
      number = static_cast<uint32_t>(algorithm.split);
      break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
      number = algorithm.reduction;
      break;
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID:
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID:
      size = sizeof(uint16_t);
      break;
    default:
      break;
  }
  if (!value || bytes != size) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &number, size);  // little endian
  *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t o, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (const cublasStatus_t status = check(o, a_layout, b_layout, c_layout, d_layout); status != CUBLAS_STATUS_SUCCESS)
    return status;
  if (!alpha || !beta || !algo || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
  const cuda_emulation::DeviceAccess access;
  const Algorithm algorithm = algorithm_of(*algo);
  if (algorithm.rows != d_layout->rows || algorithm.columns != d_layout->columns ||
      algorithm.terms != terms_of(*o, *a_layout) || workspace_bytes < algorithm.workspace ||
      (workspace_bytes > 0 && !is_aligned(workspace, 256)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void* pointers[] = {a, b, c, d, o->bias};
  for (int i = 0; i < 5; ++i)
    if (!is_aligned(pointers[i], algorithm.alignment[i])) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (algorithm.workspace > 0) std::memset(workspace, 0xff, algorithm.workspace);

  const bool tf32 = o->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const std::vector<float> left = gathered(a, *a_layout, o->transpose_a == CUBLAS_OP_T, tf32);
  const std::vector<float> right = gathered(b, *b_layout, o->transpose_b == CUBLAS_OP_N, tf32);
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  for (uint64_t column = 0; column < d_layout->columns; ++column)
    for (uint64_t row = 0; row < d_layout->rows; ++row) {
      const auto i = static_cast<int64_t>(row) + static_cast<int64_t>(column) * d_layout->ld;
      float value = scale * sum_of(&left[row * algorithm.terms], &right[column * algorithm.terms], algorithm.terms,
                                   algorithm.split);
      if (keep != 0) value += keep * stored(c, c_layout->type, i);
      if ((o->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0)
        value += stored(o->bias, d_layout->type, static_cast<int64_t>(row));
      if (d_layout->type == CUDA_R_32F)
        static_cast<float*>(d)[i] = value;
      else if (d_layout->type == CUDA_R_16F)
        static_cast<permafrost::float16*>(d)[i] = permafrost::float16(value);  // too large: infinite
      else
        static_cast<permafrost::bfloat16*>(d)[i] = permafrost::bfloat16(value);
    }
  cuda_emulation::clock += kKinds[algorithm.id].milliseconds;
  return CUBLAS_STATUS_SUCCESS;
}
