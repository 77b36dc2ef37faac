// Products of cuBLASLt, one sum after the other.
#include <algorithm>
#include <bit>
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

/// What stands in a cublasLtMatmulAlgo_t: attributes alone, each with a meaning here, so that an algorithm that lost
/// one on its way through a file does not run.
struct Algorithm {
  int32_t id = 0, split = 1;
  uint32_t reduction = 0;
  uint32_t tile = 0;     // four bits each: the alignment of A, B, C, D and the bias, as powers of two
  uint32_t swizzle = 0;  // of the extents that it is for
  uint32_t stages = 0, option = 0;
  uint16_t inner = 0, cluster = 0;

  size_t alignment(int operand) const { return size_t{1} << (tile >> (4 * operand) & 15u); }
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

uint32_t mark_of(const cublasLtMatmulDescOpaque_t& o, const cublasLtMatrixLayoutOpaque_t& a,
                 const cublasLtMatrixLayoutOpaque_t& d) {
  const uint64_t terms = o.transpose_a == CUBLAS_OP_T ? a.rows : a.columns;
  return static_cast<uint32_t>((d.rows * 1000003 + d.columns) * 1000003 + terms);
}

// In the order in which heuristics name them, with the time each takes (far less than the host does, see clock): the
// second is the fastest that adds up in a fixed order and precision.
struct Kind {
  int32_t split;
  uint32_t reduction;
  double milliseconds;
};
constexpr Kind kKinds[] = {{1, CUBLASLT_REDUCTION_SCHEME_NONE, 3e-3},
                           {3, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2e-3},
                           {2, CUBLASLT_REDUCTION_SCHEME_INPLACE, 1e-3},
                           {2, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 1e-3}};

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

/// to[place(i, r)] = term r of row (column) i of op(matrix), whose terms are the matrix's rows where terms_are_rows.
template <typename T, typename Place>
void gather(const T* p, const Layout& layout, bool terms_are_rows, bool tf32, float* to, const Place& place) {
  for (uint64_t column = 0; column < layout.columns; ++column)
    for (uint64_t row = 0; row < layout.rows; ++row) {
      const auto value = static_cast<float>(p[row + column * static_cast<uint64_t>(layout.ld)]);
      to[terms_are_rows ? place(column, row) : place(row, column)] = tf32 ? to_tf32(value) : value;
    }
}
template <typename Place>
void gather(const void* p, const Layout& layout, bool terms_are_rows, bool tf32, float* to, const Place& place) {
  if (layout.type == CUDA_R_32F)
    gather(static_cast<const float*>(p), layout, terms_are_rows, tf32, to, place);
  else if (layout.type == CUDA_R_16F)
    gather(static_cast<const permafrost::float16*>(p), layout, terms_are_rows, tf32, to, place);
  else
    gather(static_cast<const permafrost::bfloat16*>(p), layout, terms_are_rows, tf32, to, place);
}

// So many sums are made beside each other, each one term after the other.
constexpr uint64_t kBeside = 32;
struct Sums {
  float of[kBeside];
};

/// rows: term 0 of each, term 1 of each, ...
Sums sums_of(const float* rows, const float* column, uint64_t terms, int32_t split) {
  const auto parts = static_cast<uint64_t>(split);
  Sums totals{};
  for (uint64_t part = 0; part < parts; ++part) {
    Sums sums{};
    for (uint64_t r = terms * part / parts; r < terms * (part + 1) / parts; ++r)
      for (uint64_t i = 0; i < kBeside; ++i) sums.of[i] = std::fma(rows[r * kBeside + i], column[r], sums.of[i]);
    for (uint64_t i = 0; i < kBeside; ++i) totals.of[i] += sums.of[i];
  }
  return totals;
}

Algorithm algorithm_of(const cublasLtMatmulAlgo_t& algo) {
  Algorithm algorithm;
  std::memcpy(static_cast<void*>(&algorithm), algo.data, sizeof(algorithm));
  return algorithm;
}
void put(const Algorithm& algorithm, cublasLtMatmulAlgo_t& algo) {
  std::memcpy(algo.data, &algorithm, sizeof(algorithm));
}

size_t workspace_of(const Algorithm& algorithm, const Layout& d) {
  return algorithm.split == 1 ? 0 : static_cast<size_t>(algorithm.split) * d.rows * d.columns * 4;
}

/// Whether it is one that heuristics could have named for this product.
bool is_for(const Algorithm& algorithm, const Descriptor& o, const Layout& a, const Layout& d) {
  if (algorithm.id < 0 || algorithm.id >= static_cast<int32_t>(std::size(kKinds))) return false;
  const Kind& kind = kKinds[algorithm.id];
  const auto id = static_cast<uint32_t>(algorithm.id);
  return algorithm.split == kind.split && algorithm.reduction == kind.reduction &&
         algorithm.swizzle == mark_of(o, a, d) && algorithm.stages == id + 1 && algorithm.option == id + 2 &&
         algorithm.inner == id + 3 && algorithm.cluster == id + 4;
}

/// Some libraries have no 16-bit kernels for rows that begin at odd elements; this one is of that kind.
bool knows_none(const Layout& layout) { return bytes_of(layout.type) == 2 && layout.ld % 2 != 0; }

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
    if (preference->alignment[i] % bytes_of(layouts[i]->type) != 0 || knows_none(*layouts[i]))
      return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool bias = (o->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
  for (int32_t id = 0; id < static_cast<int32_t>(std::size(kKinds)) && *returned < requested; ++id) {
    const Kind& kind = kKinds[id];
    if (kind.reduction != 0 && (kind.reduction & preference->reductions) == 0) continue;
    Algorithm algorithm;
    const auto number = static_cast<uint32_t>(id);
    algorithm.id = id;
    algorithm.split = kind.split;
    algorithm.reduction = kind.reduction;
    algorithm.swizzle = mark_of(*o, *a, *d);
    algorithm.stages = number + 1;
    algorithm.option = number + 2;
    algorithm.inner = static_cast<uint16_t>(number + 3);
    algorithm.cluster = static_cast<uint16_t>(number + 4);
    for (int i = 0; i < 4; ++i)
      algorithm.tile |= static_cast<uint32_t>(std::countr_zero(preference->alignment[i])) << (4 * i);
    algorithm.tile |= (bias ? 4u : 0u) << 16;
    const size_t workspace = workspace_of(algorithm, *d);
    if (terms_of(*o, *a) < static_cast<uint64_t>(kind.split) || workspace > preference->workspace) continue;
    cublasLtMatmulHeuristicResult_t& result = results[(*returned)++];
    result = {.algo = {}, .workspaceSize = workspace, .state = CUBLAS_STATUS_SUCCESS, .wavesCount = 1, .reserved = {}};
    put(algorithm, result.algo);
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t, cudaDataType_t, cudaDataType_t,
                                      cudaDataType_t, cudaDataType_t, cudaDataType_t, int id,
                                      cublasLtMatmulAlgo_t* algo) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!algo || id < 0 || id >= static_cast<int>(std::size(kKinds))) return CUBLAS_STATUS_INVALID_VALUE;
  Algorithm algorithm;
  algorithm.id = id;
  put(algorithm, *algo);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t o, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (const cublasStatus_t status = check(o, a, b, c, d); status != CUBLAS_STATUS_SUCCESS) return status;
  if (!is_for(algorithm_of(*algo), *o, *a, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  result->workspaceSize = workspace_of(algorithm_of(*algo), *d);
  return CUBLAS_STATUS_SUCCESS;
}

namespace {
/// Where an attribute stands, and its size.
struct Field {
  void* place = nullptr;
  size_t bytes = 0;
};
Field field_of(Algorithm& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID:
      return {&algorithm.id, sizeof(algorithm.id)};
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
      return {&algorithm.tile, sizeof(algorithm.tile)};
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
      return {&algorithm.split, sizeof(algorithm.split)};
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
      return {&algorithm.reduction, sizeof(algorithm.reduction)};
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING:
      return {&algorithm.swizzle, sizeof(algorithm.swizzle)};
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION:
      return {&algorithm.option, sizeof(algorithm.option)};
    case CUBLASLT_ALGO_CONFIG_STAGES_ID:
      return {&algorithm.stages, sizeof(algorithm.stages)};
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID:
      return {&algorithm.inner, sizeof(algorithm.inner)};
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID:
      return {&algorithm.cluster, sizeof(algorithm.cluster)};
  }
  return {};
}
}  // namespace

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  Algorithm algorithm = algorithm_of(*algo);
  const Field field = field_of(algorithm, attribute);
  if (!value || bytes != field.bytes || attribute == CUBLASLT_ALGO_CONFIG_ID) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(field.place, value, bytes);
  put(algorithm, *algo);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  Algorithm algorithm = algorithm_of(*algo);
  const Field field = field_of(algorithm, attribute);
  if (!value || bytes != field.bytes) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, field.place, bytes);
  *written = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

namespace {

struct Product {
  Descriptor how;
  Layout a_layout, b_layout, c_layout, d_layout;
  float scale, keep;
  const void *a, *b, *c;
  void *d, *workspace;
  Algorithm algorithm;
  size_t workspace_bytes;
};

void put_element(const Product& p, int64_t row, int64_t column, float sum) {
  const int64_t i = row + column * p.d_layout.ld;
  float value = p.scale * sum;
  if (p.keep != 0) value += p.keep * stored(p.c, p.c_layout.type, i);
  if ((p.how.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) value += stored(p.how.bias, p.d_layout.type, row);
  if (p.d_layout.type == CUDA_R_32F)
    static_cast<float*>(p.d)[i] = value;
  else if (p.d_layout.type == CUDA_R_16F)
    static_cast<permafrost::float16*>(p.d)[i] = permafrost::float16(value);  // too large: infinite
  else
    static_cast<permafrost::bfloat16*>(p.d)[i] = permafrost::bfloat16(value);
}

void multiply(const Product& p) {
  const cuda_emulation::DeviceAccess access;
  if (p.workspace_bytes > 0) std::memset(p.workspace, 0xff, p.workspace_bytes);
  const uint64_t terms = terms_of(p.how, p.a_layout);
  const bool tf32 = p.how.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const uint64_t rows = p.d_layout.rows, columns = p.d_layout.columns;
  std::vector<float> left((rows + kBeside - 1) / kBeside * kBeside * terms), right(columns * terms);
  gather(p.a, p.a_layout, p.how.transpose_a == CUBLAS_OP_T, tf32, left.data(),
         [&](uint64_t row, uint64_t r) { return (row / kBeside * terms + r) * kBeside + row % kBeside; });
  gather(p.b, p.b_layout, p.how.transpose_b == CUBLAS_OP_N, tf32, right.data(),
         [&](uint64_t column, uint64_t r) { return column * terms + r; });
  for (uint64_t first = 0; first < rows; first += kBeside)
    for (uint64_t column = 0; column < columns; ++column) {
      const Sums sums = sums_of(&left[first * terms], &right[column * terms], terms, p.algorithm.split);
      for (uint64_t row = first; row < std::min(rows, first + kBeside); ++row)
        put_element(p, static_cast<int64_t>(row), static_cast<int64_t>(column), sums.of[row - first]);
    }
  cuda_emulation::clock += kKinds[p.algorithm.id].milliseconds;
}

}  // namespace

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t o, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (const cublasStatus_t status = check(o, a_layout, b_layout, c_layout, d_layout); status != CUBLAS_STATUS_SUCCESS)
    return status;
  if (!alpha || !beta || !algo || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
  const Algorithm algorithm = algorithm_of(*algo);
  const size_t needed = workspace_of(algorithm, *d_layout);
  if (!is_for(algorithm, *o, *a_layout, *d_layout) || workspace_bytes < needed ||
      (workspace_bytes > 0 && !is_aligned(workspace, 256)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void* pointers[] = {a, b, c, d, o->bias};
  for (int i = 0; i < 5; ++i)
    if (!is_aligned(pointers[i], algorithm.alignment(i))) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Product product{*o,
                        *a_layout,
                        *b_layout,
                        *c_layout,
                        *d_layout,
                        *static_cast<const float*>(alpha),
                        *static_cast<const float*>(beta),
                        a,
                        b,
                        c,
                        d,
                        workspace,
                        algorithm,
                        needed};
  cuda_emulation::submit(stream, [product] { multiply(product); });
  return CUBLAS_STATUS_SUCCESS;
}
