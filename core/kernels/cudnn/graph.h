#pragma once
#include <cudnn_graph.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Graphs of operations for cuDNN's backend interface. For core/kernels/cudnn alone.
namespace permafrost::cuda::cudnn {

/// cuDNN refuses something: which call of which descriptor, the status and cuDNN's own words.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Refusal unless `status` is success. what: the call and the descriptor.
void check(cudnnStatus_t status, std::string_view what, std::string_view descriptor);

/// A descriptor of the backend interface, destroyed with this.
class Descriptor {
 public:
  Descriptor() = default;
  /// name: for errors.
  Descriptor(cudnnBackendDescriptorType_t type, std::string name);
  Descriptor(Descriptor&& other) noexcept { swap(other); }
  Descriptor& operator=(Descriptor&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Descriptor();

  void set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  void set(cudnnBackendAttributeName_t attribute, int64_t value) { set(attribute, CUDNN_TYPE_INT64, 1, &value); }
  void set(cudnnBackendAttributeName_t attribute, bool value) { set(attribute, CUDNN_TYPE_BOOLEAN, 1, &value); }
  void set(cudnnBackendAttributeName_t attribute, cudnnDataType_t value) {
    set(attribute, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  void set(cudnnBackendAttributeName_t attribute, const Descriptor& value) {
    set(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.raw_);
  }
  void finalize();
  int64_t integer(cudnnBackendAttributeName_t attribute) const;
  /// Fills `into`, descriptors of the attribute's type; the number that was filled.
  int64_t descriptors(cudnnBackendAttributeName_t attribute, std::vector<Descriptor>& into) const;

  cudnnBackendDescriptor_t raw() const { return raw_; }
  const std::string& name() const { return name_; }

 private:
  void swap(Descriptor& other) noexcept {
    std::swap(raw_, other.raw_);
    std::swap(name_, other.name_);
  }
  cudnnBackendDescriptor_t raw_ = nullptr;
  std::string name_;
};

/// Of a tensor with four dimensions.
struct Layout {
  int64_t dims[4], strides[4];
};

/// Where plans are made for: a device that is there, by a handle; or a described one (DEVICEPROP), for tests.
struct Target {
  cudnnHandle_t handle = nullptr;
  const Descriptor* device = nullptr;
};

/// An engine's version of a graph, ready to run.
struct Plan {
  std::vector<Descriptor> parts;  ///< that `plan` was made from, kept as long as it
  Descriptor plan;
  int64_t workspace_bytes = 0;
  std::string engine;          ///< its number and knobs, for people
  std::vector<int64_t> ids;    ///< of the tensors that have an address: those of memory() in their order, ...
  std::vector<float> scalars;  ///< ... then those of scalar()

  /// addresses: as many as memory() was called, in that order.
  void run(cudnnHandle_t handle, std::vector<void*> addresses, void* workspace);
};

/// Operations and what lies between them. All methods throw Refusal.
class Graph {
 public:
  using Tensor = size_t;
  static constexpr Tensor kNone = ~size_t{0};

  Tensor memory(std::string name, const Layout& layout, cudnnDataType_t type);
  /// A number, part of the graph.
  Tensor scalar(std::string name, float value);
  /// What only lies between operations.
  Tensor between(std::string name, const Layout& layout, cudnnDataType_t type);

  struct Pointwise {
    cudnnPointwiseMode_t mode;
    Tensor x, b = kNone, t = kNone;
    cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    int64_t axis = -1;
  };
  void pointwise(const Pointwise& operation, Tensor y);
  /// Lengths of matrices by sample, in memory; see cuDNN's documentation of padding.
  struct Overrides {
    Tensor m = kNone, n = kNone, k = kNone;
  };
  void matmul(Tensor a, Tensor b, Tensor c, const Overrides& overrides);
  void reduce(cudnnReduceTensorOp_t operation, Tensor x, Tensor y);
  void reshape(Tensor x, Tensor y);

  /// The first engine of cuDNN's heuristics that can run it in at most `most_bytes` of workspace. Nothing may be added
  /// afterwards.
  Plan build(const Target& target, int64_t most_bytes) &&;

 private:
  Tensor add(std::string name, const Layout& layout, cudnnDataType_t type, bool between, bool scalar);
  std::string name_of(std::string_view operation, Tensor y) const;

  std::vector<Descriptor> tensors_, details_, operations_;
  std::vector<int64_t> memory_ids_, scalar_ids_;
  std::vector<float> scalars_;
};

}  // namespace permafrost::cuda::cudnn
