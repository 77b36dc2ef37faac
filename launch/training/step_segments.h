#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/device/context.h"
#include "parallel/run/work_graphs.h"

namespace permafrost {

/// What a step does behind its vote, exchanges between ranks left out, in its order.
enum class VotedWork : uint8_t {
  kConvertSums,  ///< of integers to this rank's slice of the gradient
  kScaleSlice,   ///< by what samples left out and the loss scale ask for; in steps that have such a factor
  kNormBlocks,   ///< squares of the slice
  kNorm,         ///< of all gradients, with what follows from it
  kUpdate,       ///< of masters, moments and working copies
};
constexpr int kVotedWorks = 5;
/// As in "norm blocks".
const char* to_string(VotedWork work);

/// The work of a step in segments, between which ranks exchange. On CUDA a segment is given to the stream when it ends,
/// from the second time on that there is one of the same works as one graph, but for a single work; bits are the same.
/// On CPU and without graphs each work is done as soon as it is added.
///
/// A graph has the addresses of when it was captured, and no numbers that change: what the host knows of a step lies in
/// pinned memory at fixed places, which it writes before the segment ends. It may, since it has waited for the step
/// before.
class StepSegments {
 public:
  /// give: does a work, or gives it to the context's stream; the same in every step.
  StepSegments(const Context& context, std::function<void(VotedWork)> give);

  /// Of a step. graphs: whether it may use them; false on CPU.
  void begin(bool graphs);
  /// In the order of VotedWork, each at most once in a step.
  void add(VotedWork work);
  /// All that was added is done, or given to the stream: before an exchange that needs it, and at the end.
  void end_segment();

  int64_t graph_launches() const { return graphs_.launches(); }

 private:
  bool collects_ = false;
  size_t segment_ = 0;  // what was collected: a bit for each work
  std::function<void(VotedWork)> give_;
  WorkGraphs graphs_;
};

}  // namespace permafrost
