#pragma once
#include <string>
#include <vector>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Which keys a query may see, apart from the valid lengths.
enum class MaskKind : uint8_t {
  kNone,             ///< all
  kCausal,           ///< query t sees keys 0..t
  kCausalOpenFirst,  ///< causal, but query 0 sees every key (eP-ALM's published VIS row); key 0 is seen by all anyway
  kExplicit,         ///< `allowed` says
};

/// lengths: (B) i32 in 0..S, keys at or behind lengths[b] are hidden from every query; undefined = all S keys valid.
/// allowed: (B, T, S) u8, only for kExplicit (and then defined); combined with lengths. 0 hides.
/// open_row_sees_padding: with kCausalOpenFirst, query 0 also sees keys behind the valid length (as published).
/// open_lengths: (B) i32, with kCausalOpenFirst: query 0 sees exactly the keys before open_lengths[b], whatever lengths
/// and open_row_sees_padding say (padding up to the longest sample, not up to S).
struct AttentionMask {
  MaskKind kind = MaskKind::kNone;
  Tensor lengths, allowed, open_lengths;
  bool open_row_sees_padding = false;
};

/// Scaled dot-product attention, forward: out = softmax(scale q k^T + mask) v per head; softmax in f32.
/// q: (B, T, H, D), k, v: (B, S, H, D), out: (B, T, H, D), all f32 or all bf16. Only the (H, D) part of q, k, v must be
/// contiguous: `stride_q/k/v` elements lie between consecutive tokens (0 = H*D), so that a fused (B, T, 3 H D) product
/// can be read in place: pass tensors of the shapes above that point at their part.
/// lse: (B, H, T) f32, log of the softmax denominator, kept for backward; undefined = not kept.
/// A query that sees no key gives 0 (and lse -inf) and has gradient 0. NaN in what a query sees gives NaN; keys behind
/// the valid length are not read (unless the open row sees them; in cuDNN, with T = S, they must be finite, since they
/// are multiplied by 0). A key hidden by the causal rule or by `allowed` must
/// be finite. Any head size. kCausal and kCausalOpenFirst with T != S are refused. Scores are never materialised for
/// all T x S x heads at once: a thread holds those of a few queries of one head (backward: of a few hundred), a block
/// on CUDA a tile of 64 x 64 at most; in cuDNN, backward keeps the gradients of scores of so many samples as take 256
/// MiB, or of one, up to 1 GiB. bf16 on processors with AMX, and on CUDA for head sizes up to 256: probabilities (and,
/// backward, the gradients of scores) are rounded to bf16 for the products with v (q, k, dout); all sums are in f32. On
/// CUDA, lengths out of range are reported where the stream is waited for. Workspace: attention_workspace_bytes.
/// Errors: ShapeMismatch; InvalidArgument (lengths out of range, head_size or stride impossible); NotBuilt on a device
/// without this kernel.
struct AttentionForward {
  Tensor q, k, v, out, lse;
  int64_t stride_q = 0, stride_k = 0, stride_v = 0;
  float scale = 1.0f;
  AttentionMask mask;
};
void attention_forward(const Context& context, const AttentionForward& args, Tensor workspace);

/// Backward from out, lse (both of forward) and dout (B, T, H, D): with p recomputed from lse, D = rowsum(dout out),
///   dv = p^T dout,  ds = p (dout v^T - D),  dq = scale ds k,  dk = scale ds^T q.
/// dq, dk, dv: overwritten (shapes and strides of q, k, v); each may be undefined when not needed. dout is not changed.
/// dq, dk, dv must not overlap any input. Dtypes, masks, workspace and errors as forward.
struct AttentionBackward {
  Tensor q, k, v, out, lse, dout, dq, dk, dv;
  int64_t stride_q = 0, stride_k = 0, stride_v = 0;
  float scale = 1.0f;
  AttentionMask mask;
};
void attention_backward(const Context& context, const AttentionBackward& args, Tensor workspace);

/// Who computes attention of bf16 and f16 on the context's device, for records and logs: "cuDNN 9.19.0", or "own
/// kernels". missing: why not cuDNN; "" where it does. On CPU both are "".
struct AttentionLibrary {
  std::string name, missing;
};
AttentionLibrary attention_library(const Context& context);

/// A call of attention that could go to a library.
struct AttentionChoice {
  std::string call;     ///< "attention forward bf16 (B, T, S, H, D) = (...), ...": all that a choice depends on
  std::string library;  ///< AttentionLibrary::name of the one that computes it; "": own kernels do
  std::string refusal;  ///< why no library does; "" where one does
};
/// Of every such call that the context's stream has met, in the order of what they are made of; none on CPU.
std::vector<AttentionChoice> attention_choices(const Context& context);

/// For at most `threads` threads, whose number means nothing on CUDA. A pure function of its arguments.
int64_t attention_workspace_bytes(bool backward, int64_t batch, int64_t queries, int64_t keys, int64_t heads,
                                  int64_t head_size, DType dtype, int threads, DeviceKind device = DeviceKind::kCpu);

}  // namespace permafrost
