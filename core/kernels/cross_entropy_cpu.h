#pragma once
#include "core/kernels/cross_entropy.h"

/// Arithmetic of cross_entropy.h on CPU; shapes are checked already, labels are checked here.
namespace permafrost::cpu {

void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse);
void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits);
void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss);

struct RowStatistics {
  float max, exp_sum;  ///< max x, sum exp(x - max)
  float centered_sum;  ///< sum (x - max); 0 unless asked for
};

/// The two loops over a row. Dtypes f32 and bf16.
struct CrossEntropyLoops {
  RowStatistics (*statistics)(DType dtype, const void* logits, int64_t n, bool with_centered_sum);
  /// dlogits = weight * (exp(x - lse) - target); in place allowed when the dtypes agree.
  void (*gradient)(DType dtype, const void* logits, float lse, float weight, float target, DType out_dtype,
                   void* dlogits, int64_t n);
};
extern const CrossEntropyLoops kCrossEntropyLoopsBaseline;
extern const CrossEntropyLoops kCrossEntropyLoopsAvx512;

}  // namespace permafrost::cpu
