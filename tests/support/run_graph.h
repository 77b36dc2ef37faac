#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/graph/graph.h"
#include "core/graph/needs.h"
#include "parallel/plan/program.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// Runs a graph without plan and executor, on the device in use when it is made (use_device): every buffer has an
/// address of its own, every value and gradient is kept. Memory starts as NaN bytes, so that what is read before it was
/// written shows. For tests.
class GraphRunner {
 public:
  struct Options {
    int threads = 1;
    DType matrices = DType::kF32;  ///< storage of parameters of rank 2 and more; vectors are f32
    bool keep_values = true;       ///< false: operations that the loss does not need are left out
    bool params_together = false;  ///< parameters lie one behind the other, as a plan places those of a unit
  };
  GraphRunner(const Graph& graph, const std::vector<bool>& trainable) : GraphRunner(graph, trainable, Options{}) {}
  /// `graph` must outlive the runner.
  GraphRunner(const Graph& graph, const std::vector<bool>& trainable, const Options& options);

  /// Memory of a parameter or of an input; the test fails when there is none of this name.
  Tensor param(const std::string& name) const;
  Tensor input(const std::string& name) const;
  /// Values converted to the dtype of the tensor.
  void set_param(const std::string& name, const std::vector<double>& values) const { assign(param(name), values); }
  void set_input(const std::string& name, const std::vector<double>& values) const { assign(input(name), values); }
  /// Where the graph has such an input (under f16 compute): gradients are this many times as large.
  void set_loss_scale(double scale) const;
  /// Every parameter from its initialiser.
  void initialise(uint64_t seed);

  /// Forward and backward; returns the loss, 0 without one.
  double run();

  /// Undefined when the program does not compute it.
  Tensor value(const std::string& name) const;
  Tensor value_gradient(const std::string& name) const;
  Tensor gradient(const std::string& param) const;

  const Graph& graph() const { return graph_; }
  const Program& program() const { return program_; }
  const NeedAnalysis& needs() const { return needs_; }

 private:
  void place_params(const std::vector<ParamPlacement>& placements);
  static void assign(const Tensor& tensor, const std::vector<double>& values);
  Tensor tensor(const TensorRef& ref) const;
  std::vector<Tensor> tensors(const std::vector<TensorRef>& refs) const;
  /// As adjoining_params (parallel/plan/program.h) for parameters that lie together; otherwise none.
  BitMask adjoining(const std::vector<Tensor>& params) const;

  const Graph& graph_;
  Options options_;
  NeedAnalysis needs_;
  Program program_;
  Context context_;
  Buffer arena_, inputs_, state_, together_;
  std::vector<OwnedTensor> apart_;
  std::vector<Tensor> params_;
};

/// One flag per parameter of the graph: does any of the patterns match it?
std::vector<bool> trainable_by(const Graph& graph, const std::vector<std::string>& patterns);

}  // namespace permafrost::testing
