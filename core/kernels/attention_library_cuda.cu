#include "core/kernels/attention_library_cuda.h"

#include <limits>
#include <map>
#include <memory>
#include <type_traits>

#include "core/device/cudnn.h"
#include "core/kernels/attention_view_cuda.h"
#include "core/kernels/cudnn/attention.h"

// What stands around cuDNN's attention. It knows causal masks and lengths, of 1 and more. The rest of attention.h:
//   samples without a key      computed as if they had one; their results are replaced afterwards
//   the open first row         causal in cuDNN; its own kernels compute it afterwards
// In backward such rows come with an lse of infinity, so that their probabilities are 0 and they add nothing.
namespace permafrost::cuda {

namespace {

/// Keys whose scores a block can keep in shared memory.
constexpr int64_t kMostOpenKeys = 8192;
constexpr int kOpenThreads = 256, kOpenWarps = kOpenThreads / 32, kLargestHead = 128, kPerLane = kLargestHead / 32;

/// (B) each.
struct Lengths {
  int32_t *queries, *keys;  // for cuDNN
  int32_t *valid, *open;    // keys that count, and that the open row sees; may be 0
};

struct Space {
  float *delta, *lse;
  Lengths lengths;
  void* library;
};

Space space_of(const AttentionCall& call, bool backward, void* workspace) {
  const AttentionWorkspace at =
      attention_workspace(backward, call.batch, call.queries, call.keys, call.heads, call.head_size, call.dtype);
  const auto mask = static_cast<uintptr_t>(kAttentionAlignment - 1);
  auto* begin = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(workspace) + mask) & ~mask);
  auto* lengths = reinterpret_cast<int32_t*>(begin + at.lengths);
  return {.delta = backward ? reinterpret_cast<float*>(begin + at.delta) : nullptr,
          .lse = reinterpret_cast<float*>(begin + at.lse),
          .lengths = {lengths, lengths + call.batch, lengths + 2 * call.batch, lengths + 3 * call.batch},
          .library = begin + at.library};
}

__global__ void lengths_kernel(AttentionCall call, LengthRefusers refusers, Lengths to) {
  const auto b = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= call.batch) return;
  const int keys = static_cast<int>(call.keys);
  const auto checked = [&](const int32_t* lengths, const Refuser& refuser) {
    const int length = lengths[b];
    if (length < 0 || length > keys) refuse(refuser, b, length);
    return std::min(std::max(length, 0), keys);
  };
  const int valid = call.lengths ? checked(call.lengths, refusers.lengths) : keys;
  int open = call.open_row_sees_padding ? keys : valid;
  if (call.open_lengths) open = checked(call.open_lengths, refusers.open_lengths);
  to.queries[b] = static_cast<int32_t>(call.queries);
  to.keys[b] = std::max(valid, 1);
  to.valid[b] = valid;
  to.open[b] = open;
}

/// lse for backward: infinity for rows that cuDNN must leave out.
__global__ void seen_lse_kernel(AttentionCall call, float* to, int64_t rows) {
  const auto row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float lse = call.lse[row];
  to[row] = lse == -kInfinity || (call.open_first && row % call.queries == 0) ? kInfinity : lse;
}

/// `values` numbers of each of `tokens` rows of sample b, from row `first` on, to 0. By all blocks of gridDim.y = b.
template <typename T>
__device__ void zero_rows(void* base, int64_t b, int64_t tokens, int64_t first, int64_t stride, int64_t values) {
  T* sample = static_cast<T*>(base) + b * tokens * stride;
  const int64_t all = (tokens - first) * values;
  for (auto i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)
    sample[(first + i / values) * stride + i % values] = from_float<T>(0.0f);
}

template <typename T>
__global__ void forward_without_keys_kernel(AttentionCall call, float* lse, const int32_t* valid) {
  const int64_t b = blockIdx.y, token = call.heads * call.head_size, rows = call.heads * call.queries;
  if (valid[b] != 0) return;
  zero_rows<T>(call.out, b, call.queries, 0, token, token);
  for (auto i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)
    lse[b * rows + i] = -std::numeric_limits<float>::infinity();
}

/// What is hidden has no gradient.
template <typename T>
__global__ void backward_hidden_kernel(AttentionCall call, const int32_t* valid) {
  const int64_t b = blockIdx.y, token = call.heads * call.head_size, first = valid[b];
  zero_rows<T>(call.dk, b, call.keys, first, call.stride_k, token);
  zero_rows<T>(call.dv, b, call.keys, first, call.stride_v, token);
  if (first == 0) zero_rows<T>(call.dq, b, call.queries, 0, call.stride_q, token);
}

/// One head's first row and keys: what a block of the open row's kernels works on. Lane l has elements l, l + 32, ...
template <typename T>
struct OpenRow {
  const T *k, *v;
  int64_t stride_k, stride_v;
  int size, lane, warp;

  __device__ OpenRow(const AttentionCall& call, const Place& place)
      : k(head_of<T>(call.k, call, place, call.keys, call.stride_k)),
        v(head_of<T>(call.v, call, place, call.keys, call.stride_v)),
        stride_k(call.stride_k),
        stride_v(call.stride_v),
        size(static_cast<int>(call.head_size)),
        lane(static_cast<int>(threadIdx.x % 32)),
        warp(static_cast<int>(threadIdx.x / 32)) {}
  __device__ void load(const T* row, float (&to)[kPerLane]) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) to[i] = lane + 32 * i < size ? to_float(row[lane + 32 * i]) : 0.0f;
  }
  __device__ static float dot(const float (&a)[kPerLane], const float (&b)[kPerLane]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sum = fmaf(a[i], b[i], sum);
    return warp_sum(sum);
  }
  /// sums of all warps, in their order, to `partial` [0]: (kOpenWarps, kLargestHead) shared.
  __device__ void add_warps(const float (&mine)[kPerLane], float (*partial)[kLargestHead]) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) partial[warp][lane + 32 * i] = mine[i];
    __syncthreads();
    if (threadIdx.x < kLargestHead)
      for (int w = 1; w < kOpenWarps; ++w) partial[0][threadIdx.x] += partial[w][threadIdx.x];
    __syncthreads();
  }
};

/// out and lse of the first row, which sees open[b] keys. A warp takes every kOpenWarps-th key.
template <typename T>
__global__ void __launch_bounds__(kOpenThreads)
    open_forward_kernel(AttentionCall call, float* lse, const int32_t* open) {
  PERMAFROST_DYNAMIC_SHARED(float, scores);
  __shared__ float partial[kOpenWarps][kLargestHead];
  __shared__ float scratch[32];
  const Place place = place_of(call, 1);
  const OpenRow<T> row(call, place);
  const int keys = open[place.b];
  float q[kPerLane], x[kPerLane];
  row.load(head_of<T>(call.q, call, place, call.queries, call.stride_q), q);
  float largest = -std::numeric_limits<float>::infinity();
  for (int s = row.warp; s < keys; s += kOpenWarps) {
    row.load(row.k + s * row.stride_k, x);
    const float score = OpenRow<T>::dot(q, x) * call.scale;
    if (row.lane == 0) scores[s] = score;
    largest = fmaxf(largest, score);
  }
  if (row.lane == 0) scratch[row.warp] = largest;
  __syncthreads();
  largest = warp_maximum(row.lane < kOpenWarps ? scratch[row.lane] : -std::numeric_limits<float>::infinity());
  __syncthreads();
  float sum = 0.0f, out[kPerLane] = {};
  for (int s = row.warp; s < keys; s += kOpenWarps) {
    const float p = exp2f((scores[s] - largest) * kLog2E);
    if (row.lane == 0) sum += p;
    row.load(row.v + s * row.stride_v, x);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) out[i] = fmaf(p, x[i], out[i]);
  }
  sum = block_sum(sum, scratch);
  row.add_warps(out, partial);
  T* to = head_of<T>(call.out, call, place, call.queries, call.heads * call.head_size);
  if (threadIdx.x < static_cast<unsigned>(row.size))
    to[threadIdx.x] = from_float<T>(keys > 0 ? partial[0][threadIdx.x] / sum : 0.0f);
  if (threadIdx.x == 0)
    lse[(place.b * call.heads + place.h) * call.queries] =
        keys > 0 ? largest + logf(sum) : -std::numeric_limits<float>::infinity();
}

/// dq of the first row, and what it adds to dk and dv.
template <typename T>
__global__ void __launch_bounds__(kOpenThreads) open_backward_kernel(AttentionCall call, const int32_t* open) {
  __shared__ float partial[kOpenWarps][kLargestHead];
  const Place place = place_of(call, 1);
  const OpenRow<T> row(call, place);
  const int64_t token = call.heads * call.head_size;
  T* dk = head_of<T>(call.dk, call, place, call.keys, call.stride_k);
  T* dv = head_of<T>(call.dv, call, place, call.keys, call.stride_v);
  float q[kPerLane], dout[kPerLane], k[kPerLane], v[kPerLane], dq[kPerLane] = {};
  row.load(head_of<T>(call.q, call, place, call.queries, call.stride_q), q);
  row.load(head_of<T>(call.dout, call, place, call.queries, token), dout);
  row.load(head_of<T>(static_cast<const void*>(call.out), call, place, call.queries, token), k);
  const float delta = OpenRow<T>::dot(dout, k);
  const float lse_log2 = call.lse[(place.b * call.heads + place.h) * call.queries] * kLog2E;
  for (int s = row.warp; s < open[place.b]; s += kOpenWarps) {
    row.load(row.k + s * row.stride_k, k);
    row.load(row.v + s * row.stride_v, v);
    const float p = probability(OpenRow<T>::dot(q, k), call.scale * kLog2E, lse_log2);
    const float ds = p * (OpenRow<T>::dot(dout, v) - delta);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      dq[i] = fmaf(ds, k[i], dq[i]);
      const int element = row.lane + 32 * i;
      if (element >= row.size) continue;
      T *to_k = dk + s * row.stride_k + element, *to_v = dv + s * row.stride_v + element;
      *to_k = from_float<T>(fmaf(ds * call.scale, q[i], to_float(*to_k)));
      *to_v = from_float<T>(fmaf(p, dout[i], to_float(*to_v)));
    }
  }
  row.add_warps(dq, partial);
  T* to = head_of<T>(call.dq, call, place, call.queries, call.stride_q);
  if (threadIdx.x < static_cast<unsigned>(row.size))
    to[threadIdx.x] = from_float<T>(partial[0][threadIdx.x] * call.scale);
}

template <typename Body>
void with_stored_type(const AttentionCall& call, Body&& body) {
  call.dtype == DType::kBF16 ? body.template operator()<bfloat16>() : body.template operator()<float16>();
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>(narrow<int>((n + kThreads - 1) / kThreads)); }

bool has_hidden(const AttentionCall& call) { return call.lengths || call.open_first; }

cudnn::AttentionKey key_of(const AttentionCall& call, bool backward, int64_t samples) {
  return {.backward = backward,
          .dtype = call.dtype,
          .batch = samples,
          .queries = call.queries,
          .keys = call.keys,
          .heads = call.heads,
          .head_size = call.head_size,
          .stride_q = call.stride_q,
          .stride_k = call.stride_k,
          .stride_v = call.stride_v,
          .scale = call.scale,
          .causal = call.causal,
          .lengths = call.lengths != nullptr};
}

void find_lengths(const Context& context, const AttentionCall& call, const Space& space) {
  if (has_hidden(call))
    launch(context, lengths_kernel, blocks_for(call.batch), kThreads, 0, call, length_refusers(context, call),
           space.lengths);
}

/// By sample, so that a kernel that finds nothing to do for a sample costs little.
dim3 grid_by_sample(const AttentionCall& call) { return {16, static_cast<unsigned>(narrow<int>(call.batch))}; }

/// The samples from b on.
template <typename Pointer>
Pointer part_of(Pointer base, int64_t b, int64_t bytes) {
  if (!base) return nullptr;
  if constexpr (std::is_const_v<std::remove_pointer_t<Pointer>>)
    return reinterpret_cast<Pointer>(reinterpret_cast<const std::byte*>(base) + b * bytes);
  else
    return reinterpret_cast<Pointer>(reinterpret_cast<std::byte*>(base) + b * bytes);
}

int64_t at_once(const AttentionCall& call) {
  return attention_samples_at_once(call.batch, call.queries, call.keys, call.heads);
}

const std::string kNotAllowed = "it is not allowed (parallel.attention: OWN)";

/// Why own kernels compute a call; "" where cuDNN does.
using Answers = std::map<cudnn::AttentionKey, std::string>;

/// What became of calls on the context's stream.
Answers& answers_of(const Context& context) {
  std::shared_ptr<void>& kept = queue_of(context).attention_answers;
  if (!kept) kept = std::make_shared<Answers>();
  return *static_cast<Answers*>(kept.get());
}

/// As far as the call alone can tell: the same on every machine.
bool is_for_library(const AttentionCall& call, bool backward) {
  if (!library_has_attention(call.dtype, call.queries, call.keys, call.heads, call.head_size)) return false;
  // It multiplies values behind the lengths by 0. Where there are as many keys as queries, they were computed like the
  // rest; elsewhere they may be anything, such as what a cache of tokens was never given.
  if (call.lengths && call.queries != call.keys) return false;
  if (call.allowed || call.batch > 65535 || (call.open_first && call.keys > kMostOpenKeys)) return false;
  if (backward && !(call.dq && call.dk && call.dv)) return false;
  uintptr_t all = 2 * static_cast<uintptr_t>(call.stride_q | call.stride_k | call.stride_v);
  for (const void* p : {call.q, call.k, call.v, static_cast<const void*>(call.out)})
    all |= reinterpret_cast<uintptr_t>(p);
  if (backward)
    for (const void* p : {call.dout, static_cast<const void*>(call.dq), static_cast<const void*>(call.dk),
                          static_cast<const void*>(call.dv)})
      all |= reinterpret_cast<uintptr_t>(p);
  return all % 16 == 0;
}

std::string refusal_of(const Context& context, const AttentionCall& call, bool backward) {
  if (queue_of(context).cudnn == CudnnUse::kNever) return kNotAllowed;
  if (!backward) return cudnn::refusal_of(context, key_of(call, false, call.batch));
  const int64_t samples = at_once(call), rest = call.batch % samples;
  const std::string refusal = cudnn::refusal_of(context, key_of(call, true, samples));
  return refusal.empty() && rest > 0 ? cudnn::refusal_of(context, key_of(call, true, rest)) : refusal;
}

}  // namespace

std::string cudnn::describe(const AttentionKey& key) {
  return concat("attention ", key.backward ? "backward" : "forward", " ", to_string(key.dtype), " (B, T, S, H, D) = (",
                key.batch, ", ", key.queries, ", ", key.keys, ", ", key.heads, ", ", key.head_size, "), strides ",
                key.stride_q, " ", key.stride_k, " ", key.stride_v, key.causal ? ", causal" : "",
                key.lengths ? ", lengths" : "", ", scale ", key.scale);
}

std::string why_no_cudnn(const Context& context) {
  return queue_of(context).cudnn != CudnnUse::kNever ? cudnn::missing_for(context) : kNotAllowed;
}

std::vector<AttentionChoice> attention_choices(const Context& context) {
  const std::string library = "cuDNN " + find_cudnn().version;
  std::vector<AttentionChoice> choices;
  for (const auto& [key, refusal] : answers_of(context))
    choices.push_back({cudnn::describe(key), refusal.empty() ? library : "", refusal});
  return choices;
}

bool library_takes(const Context& context, const AttentionCall& call, bool backward) {
  if (queue_of(context).cudnn == CudnnUse::kWherePays && attention_is_short(call)) return false;
  if (!is_for_library(call, backward)) return false;
  std::string refusal = refusal_of(context, call, backward);
  const bool taken = refusal.empty();
  answers_of(context).insert_or_assign(key_of(call, backward, call.batch), std::move(refusal));
  return taken;
}

void attention_forward_library(const Context& context, const AttentionCall& call, void* workspace) {
  ++queue_of(context).cudnn_calls;
  const Space space = space_of(call, false, workspace);
  float* lse = call.lse ? call.lse : space.lse;
  find_lengths(context, call, space);
  cudnn::AttentionMemory memory{};
  memory.q = call.q, memory.k = call.k, memory.v = call.v, memory.out = call.out, memory.lse = lse;
  memory.query_lengths = space.lengths.queries, memory.key_lengths = space.lengths.keys;
  cudnn::run_attention(context, key_of(call, false, call.batch), memory, space.library);
  with_stored_type(call, [&]<typename T>() {
    if (call.lengths)
      launch(context, forward_without_keys_kernel<T>, grid_by_sample(call), kThreads, 0, call, lse,
             space.lengths.valid);
    if (call.open_first)
      launch(context, open_forward_kernel<T>, grid_of(call, 1), kOpenThreads, 4 * call.keys, call, lse,
             space.lengths.open);
  });
}

void attention_backward_library(const Context& context, const AttentionCall& call, void* workspace) {
  ++queue_of(context).cudnn_calls;
  const Space space = space_of(call, true, workspace);
  find_lengths(context, call, space);
  const int64_t rows = call.heads * call.queries, out = 2 * call.queries * call.heads * call.head_size;
  if (has_hidden(call))
    launch(context, seen_lse_kernel, blocks_for(call.batch * rows), kThreads, 0, call, space.lse, call.batch * rows);
  const float* lse = has_hidden(call) ? space.lse : call.lse;
  const int64_t q = 2 * call.queries * call.stride_q, k = 2 * call.keys * call.stride_k,
                v = 2 * call.keys * call.stride_v;
  for (int64_t b = 0, samples = at_once(call); b < call.batch; b += samples) {
    const int64_t taken = std::min(samples, call.batch - b);
    cudnn::run_attention(context, key_of(call, true, taken),
                         {.q = part_of(call.q, b, q),
                          .k = part_of(call.k, b, k),
                          .v = part_of(call.v, b, v),
                          .out = part_of(call.out, b, out),
                          .lse = const_cast<float*>(part_of(lse, b, 4 * rows)),
                          .dout = part_of(call.dout, b, out),
                          .dq = part_of(call.dq, b, q),
                          .dk = part_of(call.dk, b, k),
                          .dv = part_of(call.dv, b, v),
                          .delta = part_of(space.delta, b, 4 * rows),
                          .query_lengths = space.lengths.queries + b,
                          .key_lengths = space.lengths.keys + b},
                         space.library);
  }
  with_stored_type(call, [&]<typename T>() {
    if (call.lengths)
      launch(context, backward_hidden_kernel<T>, grid_by_sample(call), kThreads, 0, call, space.lengths.valid);
    if (call.open_first)
      launch(context, open_backward_kernel<T>, grid_of(call, 1), kOpenThreads, 0, call, space.lengths.open);
  });
}

}  // namespace permafrost::cuda
