#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

enum class Pass : uint8_t { kForward, kBackward };

/// A set of operand positions: bit i stands for input (or parameter, or output) i.
using BitMask = uint32_t;
constexpr BitMask bit(size_t i) { return BitMask{1} << i; }
constexpr bool has(BitMask mask, size_t i) { return (mask >> i & 1u) != 0; }

/// Which gradients backward must produce. Found by need propagation; empty means backward is never called.
struct Needs {
  BitMask inputs = 0;  ///< dX wanted: something trainable lies upstream of the input
  BitMask params = 0;  ///< dW wanted: the parameter is trainable
  bool any() const { return (inputs | params) != 0; }
};

/// What backward reads besides the gradients of the outputs; the rest may be released after forward.
struct BackwardUse {
  BitMask inputs = 0;          ///< values of inputs
  BitMask outputs = 0;         ///< values of outputs
  BitMask params = 0;          ///< weights read again (a sharded unit is gathered again for them)
  bool clobbers_dout = false;  ///< backward may overwrite the gradients of its outputs
};

/// Shapes and dtypes of one use of an operation.
struct OpSpecs {
  std::vector<TensorSpec> inputs, outputs;
  std::vector<Shape> params;
};

/// Floating-point operations (a multiply-add counts as two) of one use.
struct OpFlops {
  double forward = 0, backward_inputs = 0, backward_params = 0;
  /// Parameters that have an equal share of each of these; 0 = they are due as a whole, to any of the parameters.
  BitMask shares = 0;
  /// Of a backward pass that produces these gradients.
  double backward(const Needs& needs) const {
    return (needs.inputs ? backward_inputs : 0) + share(backward_params, needs.params);
  }
  /// What of `flops`, one of the three, is due to these parameters.
  double share(double flops, BitMask params) const {
    if (shares == 0) return params != 0 ? flops : 0;
    return flops * std::popcount(params & shares) / std::popcount(shares);
  }
};

struct ForwardArgs {
  std::span<const Tensor> inputs, params, outputs, saved;
  Tensor workspace;
  BitMask adjoining = 0;  ///< bit i: the plan lets parameter i begin where parameter i - 1 ends (adjoining_params)
};

/// Tensors that `backward_use` does not name, and gradients that are not needed, are undefined. Gradients of values
/// have the graph's compute dtype, also where the value itself is wider (f32 logits under bf16 compute); gradients of
/// parameters are f32. The operation that makes the loss gets an undefined doutput: backward starts there.
struct BackwardArgs {
  std::span<const Tensor> inputs, params, outputs, saved;
  std::span<const Tensor> doutputs;
  std::span<const Tensor> dinputs;
  std::span<const GradMode> dinput_modes;
  std::span<const Tensor> dparams;  ///< f32
  std::span<const GradMode> dparam_modes;
  Tensor workspace;
  BitMask adjoining = 0;  ///< as in forward, among the parameters that `backward_use` names
};

/// One kind of computation with its derivative. An instance holds constants only (an epsilon, a scale); forward and
/// backward are functions of their arguments: no hidden state, no allocation, no collective.
class Op {
 public:
  virtual ~Op() = default;
  virtual std::string_view kind() const = 0;

  /// Everything the result depends on beside operands and the shapes of operands and outputs, as Constants
  /// (core/graph/constants.h) builds it; "" when there is nothing. Part of the hashes of plan and graph, so two
  /// operations of one kind and equal constants must compute the same.
  virtual std::string constants() const = 0;

  /// Specs of the outputs. Throws ShapeMismatch; the graph adds the scope to the message.
  virtual std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const = 0;

  virtual BackwardUse backward_use(const Needs& needs) const = 0;

  /// Parameters that forward on a GPU takes in the dtype of its first output as well as in f32, and would convert.
  virtual BitMask wants_compute_dtype() const { return 0; }

  /// Buffers that forward writes for backward (statistics, pre-activations), given what backward must produce.
  virtual std::vector<TensorSpec> saved(const OpSpecs&, const Needs&) const { return {}; }

  virtual int64_t workspace_bytes(const OpSpecs&, Pass, const Needs&, const Workers&) const { return 0; }

  virtual OpFlops flops(const OpSpecs&) const { return {}; }

  /// An input whose memory output 0 may take over when nobody reads that input afterwards.
  virtual std::optional<size_t> in_place_input() const { return std::nullopt; }

  /// Whether forward_with can compute `before` along the way: the operation that runs right before this one and whose
  /// output 0 is input 0 of this one. One pass over memory instead of two, with the same bits; backward of both stays.
  virtual bool takes_along(const Op& /*before*/) const { return false; }

  /// Inputs whose gradient *is* the gradient of output 0 (addition): the plan may let them share memory, and then
  /// passes the shared tensor as dinput; backward must do nothing when dinput and doutput are the same memory.
  virtual BitMask passes_gradient(const OpSpecs&) const { return 0; }

  /// False for an input whose gradient can only be overwritten; the plan then adds through a temporary.
  virtual bool adds_input_gradient(size_t /*input*/) const { return true; }

  virtual void forward(const Context& context, const ForwardArgs& args) const = 0;
  /// forward, which first writes inputs[0] with what an operation that it takes along makes of `before`, its inputs.
  virtual void forward_with(const Context&, const ForwardArgs&, std::span<const Tensor> /*before*/) const {
    fail(ErrorKind::kInternal, kind(), ": takes no operation along; got one");
  }
  virtual void backward(const Context& context, const BackwardArgs& args) const = 0;
};

}  // namespace permafrost
