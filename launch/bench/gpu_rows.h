#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"
#include "launch/bench/gpu_timing.h"

namespace permafrost::bench {

/// What one row measures. Parts of a step count by the FLOPs per parameter and token that their freezing leaves: 2N
/// forward alone (in front of everything trained), 4N forward and the gradient of the input (frozen, behind something
/// trained), 6N trained; 0N: no parameters, or as good as none.
struct GpuRow {
  std::string workload;  ///< e1-2.7b, e1-6.7b, e3, e4
  std::string part;      ///< vision fc1, text lm_head, connector, ...
  std::string pass;      ///< forward, dx, dw, update
  std::string freezing;  ///< 2N, 4N, 6N, 0N
  DType dtype = DType::kBF16;
  std::string shape;    ///< "960 x 10240 x 2560"
  double flops = 0;     ///< of one call, where it is set beside products; else 0
  double bytes = 0;     ///< that one call must read and write once, where it is set beside a copy; else 0
  double per_step = 1;  ///< such calls in a step without recomputing anything

  std::string name() const;
};

/// A row, and what makes its memory and its call.
struct GpuCase {
  GpuRow row;
  std::function<GpuCall(Stream&)> make;
};

/// One of the workloads that speed is promised for, as much of it as decides shapes.
struct GpuWorkload {
  std::string name;
  /// text_tokens: of all layers; those in front of a visual token have one less, which is not counted. predicted: rows
  /// of logits of all samples together.
  int64_t batch = 0, text_tokens = 0, predicted = 0;
  int64_t layers = 0, width = 0, heads = 0, hidden = 0, vocabulary = 0;
  int64_t backward_layers = 0;  ///< layers with a backward pass: all but those in front of everything trained
  int64_t parted_layers = 0;    ///< layers that get something put between the last sum and their first norm: visual
                                ///< tokens, or prompts in front of the first
  int64_t adaptor_sums = 0;     ///< of adaptors with what they adapt
  int64_t vision_layers = 0, vision_width = 0, vision_heads = 0, patches = 0;  ///< 0: no vision
  int64_t class_tokens = 0;  ///< last encoder blocks whose class token is taken; nothing else is of the last one behind
                             ///< its attention. 0: all tokens of the last one go on
  // Trained linear layers: so many, rows of each, from width to width; and of how many of them gradients of their
  // inputs are needed.
  struct Trained {
    std::string name;
    int64_t count, rows, out, in;
    int64_t input_gradients;
  };
  std::vector<Trained> trained;
  int64_t rows() const { return batch * text_tokens; }
  /// Encoder blocks of which only the class token goes on behind the attention.
  int64_t token_blocks() const { return class_tokens > 0 ? 1 : 0; }
  int64_t trained_parameters() const;
};

/// tiny: the same list at sizes that an emulation computes in a second.
std::vector<GpuWorkload> gpu_workloads(bool tiny);

/// Every kind of call that a step of the workload has, at its shapes, none left out for being slow; those that it does
/// not have are. Numbers of products, attention, norms and sums are those of the workload's plan.
std::vector<GpuCase> product_cases(const GpuWorkload& workload);  ///< linear layers and attention
std::vector<GpuCase> memory_cases(const GpuWorkload& workload);   ///< everything that should be as fast as memory

}  // namespace permafrost::bench
