#include "core/kernels/attention.h"

#include <algorithm>
#include <string_view>

#include "core/device/cudnn.h"
#include "core/kernels/attention_cpu.h"
#include "core/kernels/attention_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {
constexpr int64_t kAlignment = 64;

void check_mask(std::string_view op, const Context& context, const AttentionMask& mask, int64_t batch, int64_t queries,
                int64_t keys) {
  const bool causal = mask.kind == MaskKind::kCausal || mask.kind == MaskKind::kCausalOpenFirst;
  if (causal && queries != keys)
    fail(ErrorKind::kShapeMismatch, op, ": a causal mask must have as many queries as keys; got T=", queries,
         " S=", keys);
  if (mask.lengths) check_tensor(op, "mask.lengths", mask.lengths, context, {batch}, {DType::kI32});
  if (mask.open_lengths) {
    check_tensor(op, "mask.open_lengths", mask.open_lengths, context, {batch}, {DType::kI32});
    if (mask.kind != MaskKind::kCausalOpenFirst)
      fail(ErrorKind::kShapeMismatch, op, ": mask.open_lengths must be undefined unless the first row is open; got ",
           mask.open_lengths.spec());
  }
  if (mask.kind == MaskKind::kExplicit)
    check_tensor(op, "mask.allowed", mask.allowed, context, {batch, queries, keys}, {DType::kU8});
  else if (mask.allowed)
    fail(ErrorKind::kShapeMismatch, op, ": mask.allowed must be undefined unless the mask is explicit; got ",
         mask.allowed.spec());
}

/// 0 means contiguous.
int64_t resolved_stride(std::string_view op, std::string_view name, int64_t stride, int64_t token) {
  if (stride == 0) return token;
  PERMAFROST_CHECK(stride >= token, op, ": ", name, " must be 0 or at least H*D = ", token, "; got ", stride);
  return stride;
}

/// Checks what both passes have in common and describes it to the arithmetic.
template <typename Args>
AttentionCall describe(std::string_view op, const Context& context, const Args& args) {
  check_rank(op, "q", args.q, context, 4, "(B, T, H, D)", activation_dtypes(context));
  const DType dtype = args.q.dtype();
  check_rank(op, "k", args.k, context, 4, "(B, S, H, D)", {dtype});
  const int64_t batch = args.q.dim(0), queries = args.q.dim(1), heads = args.q.dim(2), size = args.q.dim(3);
  const int64_t keys = args.k.dim(1), token = heads * size;
  check_tensor(op, "k", args.k, context, {batch, keys, heads, size}, {dtype});
  check_tensor(op, "v", args.v, context, args.k.shape(), {dtype});
  check_tensor(op, "out", args.out, context, args.q.shape(), {dtype});
  check_mask(op, context, args.mask, batch, queries, keys);
  AttentionCall call{};
  call.dtype = dtype, call.bf16 = dtype == DType::kBF16;
  call.batch = batch, call.queries = queries, call.keys = keys, call.heads = heads, call.head_size = size;
  call.stride_q = resolved_stride(op, "stride_q", args.stride_q, token);
  call.stride_k = resolved_stride(op, "stride_k", args.stride_k, token);
  call.stride_v = resolved_stride(op, "stride_v", args.stride_v, token);
  call.q = args.q.raw(), call.k = args.k.raw(), call.v = args.v.raw(), call.out = args.out.raw();
  call.scale = args.scale;
  call.causal = args.mask.kind == MaskKind::kCausal || args.mask.kind == MaskKind::kCausalOpenFirst;
  call.open_first = args.mask.kind == MaskKind::kCausalOpenFirst;
  call.open_row_sees_padding = args.mask.open_row_sees_padding;
  if (args.mask.open_lengths) call.open_lengths = args.mask.open_lengths.template data<int32_t>();
  if (args.mask.lengths) call.lengths = args.mask.lengths.template data<int32_t>();
  if (args.mask.allowed) call.allowed = args.mask.allowed.template data<uint8_t>();
  return call;
}

/// The kernels check the lengths: the memory cannot be read here.
void check_on_cuda(std::string_view op, const AttentionCall& call, bool backward, DType dtype,
                   const Tensor& workspace) {
  const int64_t needed = attention_workspace_bytes(backward, call.batch, call.queries, call.keys, call.heads,
                                                   call.head_size, dtype, 1, DeviceKind::kCuda);
  if (workspace.bytes() < needed)
    fail(ErrorKind::kShapeMismatch, op, ": workspace must have at least ", needed, " bytes; got ", workspace.bytes());
}

/// What can be checked only where the memory can be read.
void check_on_cpu(std::string_view op, const Context& context, const AttentionCall& call, bool backward, DType dtype,
                  const Tensor& workspace) {
  for (int64_t b = 0; call.lengths && b < call.batch; ++b)
    PERMAFROST_CHECK(0 <= call.lengths[b] && call.lengths[b] <= call.keys, op, ": mask.lengths must lie in 0..",
                     call.keys, "; got ", call.lengths[b], " for sample ", b);
  for (int64_t b = 0; call.open_lengths && b < call.batch; ++b)
    PERMAFROST_CHECK(0 <= call.open_lengths[b] && call.open_lengths[b] <= call.keys, op,
                     ": mask.open_lengths must lie in 0..", call.keys, "; got ", call.open_lengths[b], " for sample ",
                     b);
  const int64_t needed = attention_workspace_bytes(backward, call.batch, call.queries, call.keys, call.heads,
                                                   call.head_size, dtype, context.pool->threads());
  if (workspace.bytes() < needed)
    fail(ErrorKind::kShapeMismatch, op, ": workspace must have at least ", needed, " bytes for ",
         context.pool->threads(), " threads; got ", workspace.bytes());
}

void check_on_device(std::string_view op, const Context& context, const AttentionCall& call, bool backward, DType dtype,
                     const Tensor& workspace) {
  check_device(op, context);
  if (on_cuda(context)) return check_on_cuda(op, call, backward, dtype, workspace);
  check_on_cpu(op, context, call, backward, dtype, workspace);
}
}  // namespace

int64_t attention_workspace_bytes(bool backward, int64_t batch, int64_t queries, int64_t keys, int64_t heads,
                                  int64_t head_size, DType dtype, int threads, DeviceKind device) {
  if (batch == 0 || queries == 0 || heads == 0 || head_size == 0) {
    // Backward still writes zeros to dk and dv of keys without queries.
    if (!backward || batch == 0 || heads == 0 || head_size == 0) return 0;
  }
  if (device == DeviceKind::kCuda)
    return cuda::attention_workspace(backward, batch, queries, keys, heads, head_size, dtype).bytes;
  int64_t bytes = attention_scratch_general(backward, keys, head_size);
  if (dtype == DType::kBF16) bytes = std::max(bytes, attention_scratch_amx(backward, queries, keys, head_size));
  return bytes * threads + kAlignment;
}

void attention_forward_at(SimdLevel level, const Context& context, const AttentionForward& args, Tensor workspace) {
  constexpr std::string_view kOp = "attention_forward";
  AttentionCall call = describe(kOp, context, args);
  if (args.lse) check_tensor(kOp, "lse", args.lse, context, {call.batch, call.heads, call.queries}, {DType::kF32});
  check_on_device(kOp, context, call, false, args.q.dtype(), workspace);
  if (args.q.elements() == 0) return;
  call.lse = args.lse ? args.lse.data<float>() : nullptr;
  if (on_cuda(context)) return cuda::attention_forward(context, call, workspace.raw());
  attention_forward_cpu(call, *context.pool, level, workspace.raw());
}

void attention_backward_at(SimdLevel level, const Context& context, const AttentionBackward& args, Tensor workspace) {
  constexpr std::string_view kOp = "attention_backward";
  AttentionCall call = describe(kOp, context, args);
  const DType dtype = args.q.dtype();
  check_tensor(kOp, "lse", args.lse, context, {call.batch, call.heads, call.queries}, {DType::kF32});
  check_tensor(kOp, "dout", args.dout, context, args.q.shape(), {dtype});
  if (args.dq) check_tensor(kOp, "dq", args.dq, context, args.q.shape(), {dtype});
  if (args.dk) check_tensor(kOp, "dk", args.dk, context, args.k.shape(), {dtype});
  if (args.dv) check_tensor(kOp, "dv", args.dv, context, args.v.shape(), {dtype});
  if (!args.dq && !args.dk && !args.dv) return;
  check_on_device(kOp, context, call, true, dtype, workspace);
  if (call.batch * call.heads * call.head_size == 0) return;
  call.lse = args.lse.data<float>();
  call.dout = args.dout.raw();
  call.dq = args.dq.raw(), call.dk = args.dk.raw(), call.dv = args.dv.raw();
  if (on_cuda(context)) return cuda::attention_backward(context, call, workspace.raw());
  attention_backward_cpu(call, *context.pool, level, workspace.raw());
}

AttentionLibrary attention_library(const Context& context) {
  if (!on_cuda(context)) return {};
  check_device("attention_library", context);
  std::string missing = cuda::why_no_cudnn(context);
  return {missing.empty() ? "cuDNN " + cuda::find_cudnn().version : "own kernels", std::move(missing)};
}

std::vector<AttentionChoice> attention_choices(const Context& context) {
  if (!on_cuda(context)) return {};
  check_device("attention_choices", context);
  return cuda::attention_choices(context);
}

void attention_forward(const Context& context, const AttentionForward& args, Tensor workspace) {
  attention_forward_at(simd_level(), context, args, workspace);
}

void attention_backward(const Context& context, const AttentionBackward& args, Tensor workspace) {
  attention_backward_at(simd_level(), context, args, workspace);
}

}  // namespace permafrost
