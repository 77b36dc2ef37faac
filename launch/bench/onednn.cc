#include "launch/bench/onednn.h"

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "core/base/check.h"

namespace permafrost::bench {

namespace {
using dnnl::memory;

memory::data_type type_of(DType dtype) {
  return dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

class OneDnn {
 public:
  OneDnn(const Problem& p, bool packed) : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Tag = memory::format_tag;
    const bool forward = p.pass == LinearPass::kForward, dw = p.pass == LinearPass::kBackwardWeight;
    const memory::data_type type = type_of(p.dtype), f32 = memory::data_type::f32;
    const int64_t rows = dw ? p.n : p.m, columns = forward ? p.n : p.k, terms = forward ? p.k : dw ? p.m : p.n;
    const memory::desc a({rows, terms}, type, dw ? Tag::ba : Tag::ab),
        b({terms, columns}, type, forward ? Tag::ba : Tag::ab);
    const memory::desc any({terms, columns}, type, Tag::any), c({rows, columns}, dw ? f32 : type, Tag::ab),
        bias({1, p.n}, f32, Tag::ab);
    const memory::desc& wanted = packed ? any : b;
    const dnnl::matmul::desc desc = forward ? dnnl::matmul::desc(a, wanted, bias, c) : dnnl::matmul::desc(a, wanted, c);
    const dnnl::matmul::primitive_desc primitive(desc, engine_);
    product_ = dnnl::matmul(primitive);
    memory weights(b, engine_, (dw ? p.x : p.weight).tensor.raw());
    if (packed) {
      memory copy(primitive.weights_desc(), engine_);
      dnnl::reorder(weights, copy).execute(stream_, weights, copy);
      stream_.wait();
      weights = copy;
    }
    const Matrix& left = forward ? p.x : p.y;
    const Matrix& result = forward ? p.y : dw ? p.dweight : p.x;
    args_ = {{DNNL_ARG_SRC, memory(a, engine_, left.tensor.raw())},
             {DNNL_ARG_WEIGHTS, weights},
             {DNNL_ARG_DST, memory(c, engine_, result.tensor.raw())}};
    if (forward) args_[DNNL_ARG_BIAS] = memory(bias, engine_, p.bias.tensor.raw());
  }

  void run() {
    product_.execute(stream_, args_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  std::unordered_map<int, memory> args_;
};
}  // namespace

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return concat(version->major, ".", version->minor, ".", version->patch);
}

std::function<void()> onednn_product(const Problem& problem, bool packed) {
  return [product = std::make_shared<OneDnn>(problem, packed)] { product->run(); };
}

}  // namespace permafrost::bench
