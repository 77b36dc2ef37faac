// The functions of cuDNN that the CUDA backend calls, each handed on to the library, which is opened by the first of
// them. So the program does not refuse to start where the library is missing, and attention then runs without it.
#include "core/device/cudnn.h"

#include <cudnn_graph.h>
#include <dlfcn.h>

#include "core/base/check.h"
#include "core/device/cuda_library.h"

namespace permafrost::cuda {

namespace {

constexpr const char* kLibrary = "libcudnn.so.9";
/// Below it the backward graph needs lengths for keys that are no multiple of 128, and some versions give wrong sums.
constexpr size_t kOldest = 91600;

std::string text_of(size_t version) { return concat(version / 10000, ".", version % 10000 / 100, ".", version % 100); }

CudnnFound look_for() {
  CudnnFound found;
  const LibraryPlace& library = find_library(kLibrary);
  found.path = library.path;
  if (!library.handle) {
    found.missing = library.reason;
    return found;
  }
  const auto version = reinterpret_cast<size_t (*)()>(dlsym(library.handle, "cudnnGetVersion"));
  const size_t number = version ? version() : 0;
  if (number < kOldest)
    found.missing =
        concat("expected cuDNN ", text_of(kOldest), " or later; got ", text_of(number), " (", library.path, ")");
  else
    found.version = text_of(number);
  return found;
}

/// Of cuDNN; Function is its type.
template <typename Function>
Function* symbol(const char* name) {
  const LibraryPlace& library = find_library(kLibrary);
  if (!library.handle) fail(ErrorKind::kNotBuilt, "cuda: cuDNN is called, and missing: ", library.reason);
  void* found = dlsym(library.handle, name);
  if (!found) fail(ErrorKind::kNotBuilt, "cuda: expected a cuDNN with ", name, "; got ", library.path);
  return reinterpret_cast<Function*>(found);
}

}  // namespace

bool cudnn_built() { return true; }

const CudnnFound& find_cudnn() {
  static const CudnnFound found = look_for();
  return found;
}

}  // namespace permafrost::cuda

// Looked up once, at the first call; arguments as in cudnn_graph.h.
#define PERMAFROST_CUDNN_HAND_ON(name, ...)                                        \
  static auto* const function = permafrost::cuda::symbol<decltype(::name)>(#name); \
  return function(__VA_ARGS__)

extern "C" {

const char* cudnnGetErrorString(cudnnStatus_t status) { PERMAFROST_CUDNN_HAND_ON(cudnnGetErrorString, status); }

void cudnnGetLastErrorString(char* message, size_t size) {
  PERMAFROST_CUDNN_HAND_ON(cudnnGetLastErrorString, message, size);
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { PERMAFROST_CUDNN_HAND_ON(cudnnCreate, handle); }

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { PERMAFROST_CUDNN_HAND_ON(cudnnDestroy, handle); }

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  PERMAFROST_CUDNN_HAND_ON(cudnnSetStream, handle, stream);
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendCreateDescriptor, type, descriptor);
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendDestroyDescriptor, descriptor);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendFinalize, descriptor);
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendSetAttribute, descriptor, name, type, count, values);
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t* count, void* values) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendGetAttribute, descriptor, name, type, room, count, values);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  PERMAFROST_CUDNN_HAND_ON(cudnnBackendExecute, handle, plan, pack);
}

}  // extern "C"
