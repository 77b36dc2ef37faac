// The functions of cuBLASLt that the CUDA backend calls, each handed on to the library, which is opened by the first of
// them. So the program does not refuse to start where the library is missing.
#include <cublasLt.h>
#include <dlfcn.h>

#include "core/base/check.h"
#include "core/device/cuda_library.h"

namespace {

using namespace permafrost;

/// Of cuBLASLt; Function is its type.
template <typename Function>
Function* symbol(const char* name) {
  const cuda::LibraryPlace& library = cuda::find_library("libcublasLt.so.13");
  if (!library.handle) fail(ErrorKind::kNotBuilt, "cuda: products of matrices need cuBLASLt: ", library.reason);
  void* found = dlsym(library.handle, name);
  if (!found) fail(ErrorKind::kNotBuilt, "cuda: expected a cuBLASLt with ", name, "; got ", library.path);
  return reinterpret_cast<Function*>(found);
}

}  // namespace

// Looked up once, at the first call; arguments as in cublasLt.h.
#define PERMAFROST_HAND_ON(name, ...)                            \
  static auto* const function = symbol<decltype(::name)>(#name); \
  return function(__VA_ARGS__)

extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t status) { PERMAFROST_HAND_ON(cublasLtGetStatusName, status); }

const char* cublasLtGetStatusString(cublasStatus_t status) { PERMAFROST_HAND_ON(cublasLtGetStatusString, status); }

size_t cublasLtGetVersion() { PERMAFROST_HAND_ON(cublasLtGetVersion); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { PERMAFROST_HAND_ON(cublasLtCreate, handle); }

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { PERMAFROST_HAND_ON(cublasLtDestroy, handle); }

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  PERMAFROST_HAND_ON(cublasLtMatmul, handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
                     algo, workspace, workspace_bytes, stream);
}

// In cublasLt.h these four are inline, and call functions of the library that end in _internal or _v2 where it says
// so; see the definitions there.
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  PERMAFROST_HAND_ON(cublasLtMatmulDescCreate, desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  PERMAFROST_HAND_ON(cublasLtMatmulDescDestroy, desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  PERMAFROST_HAND_ON(cublasLtMatmulDescSetAttribute, desc, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  PERMAFROST_HAND_ON(cublasLtMatrixLayoutCreate, layout, type, rows, columns, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  PERMAFROST_HAND_ON(cublasLtMatrixLayoutDestroy, layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  PERMAFROST_HAND_ON(cublasLtMatmulPreferenceCreate, preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  PERMAFROST_HAND_ON(cublasLtMatmulPreferenceDestroy, preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  PERMAFROST_HAND_ON(cublasLtMatmulPreferenceSetAttribute, preference, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  PERMAFROST_HAND_ON(cublasLtMatmulAlgoGetHeuristic, handle, desc, a, b, c, d, preference, wanted, results, count);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  PERMAFROST_HAND_ON(cublasLtMatmulAlgoConfigGetAttribute, algo, attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  PERMAFROST_HAND_ON(cublasLtMatmulAlgoConfigSetAttribute, algo, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute, cudaDataType_t scale,
                                      cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t* algo) {
  PERMAFROST_HAND_ON(cublasLtMatmulAlgoInit, handle, compute, scale, a, b, c, d, id, algo);
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  PERMAFROST_HAND_ON(cublasLtMatmulAlgoCheck, handle, desc, a, b, c, d, algo, result);
}

}  // extern "C"
