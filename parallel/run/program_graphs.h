#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "core/device/context.h"
#include "core/device/cuda.h"

namespace permafrost {

/// Gives a CUDA stream the same long list of kernels again and again with one call of the host: a program that was run
/// once is captured the second time, and from then on launched as a graph. The bits are those without graphs, since the
/// kernels, their order and their addresses are.
class ProgramGraphs {
 public:
  explicit ProgramGraphs(const Context& context) : context_(context) {}

  /// Runs `give`, which gives the stream the work of a program: by calling it, or by launching what it gave before
  /// under the same key. After the first call everything it needs has been made (handles of libraries, their memory).
  /// Returns whether it was called. Work that the device cannot capture is given call by call from then on, and the log
  /// says why.
  bool run(std::pair<size_t, int> key, const std::function<void()>& give);

  int64_t launches() const { return launches_; }  ///< of graphs, so far
  /// As if nothing had been captured.
  void forget() { entries_.clear(); }

 private:
  struct Entry {
    bool ran = false, refused = false;
    cuda::OwnedCapture captured;
  };
  Context context_;
  std::map<std::pair<size_t, int>, Entry> entries_;
  int64_t launches_ = 0;
};

}  // namespace permafrost
