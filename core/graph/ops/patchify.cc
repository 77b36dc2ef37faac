#include "core/graph/ops/patchify.h"

#include "core/graph/constants.h"
#include "core/kernels/patchify.h"

namespace permafrost {

namespace {

class PatchifyOp final : public Op {
 public:
  PatchifyOp(int64_t patch, DType compute) : patch_(patch), compute_(compute) {}
  std::string_view kind() const override { return "patchify"; }
  std::string constants() const override { return Constants().add("patch", patch_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    const Shape& s = inputs[0].shape;
    if (s.rank() != 4 || inputs[0].dtype != DType::kF32 || patch_ < 1 || s[2] % patch_ != 0 || s[3] % patch_ != 0)
      fail(ErrorKind::kShapeMismatch, "patchify: images must be (B, C, H, W) f32, H and W multiples of ", patch_,
           "; got ", inputs[0]);
    return {{{s[0], (s[2] / patch_) * (s[3] / patch_), s[1] * patch_ * patch_}, compute_}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    patchify_forward(context, args.inputs[0], patch_, rows(args.outputs[0]));
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dinputs[0].defined())
      patchify_backward(context, rows(args.doutputs[0]), patch_, args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  static Tensor rows(const Tensor& t) { return t.reshaped({t.dim(0) * t.dim(1), t.dim(2)}); }

  int64_t patch_;
  DType compute_;
};

}  // namespace

Value patchify(Graph& graph, Value images, int64_t patch) {
  return graph.apply(std::make_unique<PatchifyOp>(patch, graph.compute()), {images});
}

}  // namespace permafrost
