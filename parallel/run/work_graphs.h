#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "core/device/context.h"
#include "core/device/cuda.h"

namespace permafrost {

/// Gives a CUDA stream the same list of kernels and copies again and again with one call of the host: work is captured
/// right behind its first time, when everything it needs has been made (handles of libraries, their memory), and from
/// then on launched as a graph. So what a graph takes of the device's memory is taken in the first step, of all work
/// that this step has. The bits are those without graphs, since the kernels, their order and their addresses are.
class WorkGraphs {
 public:
  struct Key {
    size_t work = 0;   ///< what is done: a program, say
    int variant = 0;   ///< which form of it
    int segment = -1;  ///< which part of it; -1: all
    auto operator<=>(const Key&) const = default;
  };
  /// name: what the log calls the work of a key.
  WorkGraphs(const Context& context, std::function<std::string(Key)> name)
      : context_(context), name_(std::move(name)) {}

  /// Does work by calling `give`, which gives it to the stream, or by launching what it gave before under the same key.
  /// The first time `give` is called twice: to do the work, and for the capture. Work that the device cannot capture is
  /// given call by call from then on, and the log says why.
  void run(Key key, const std::function<void()>& give);

  int64_t launches() const { return launches_; }  ///< of graphs, so far
  /// As if nothing had been captured.
  void forget() { entries_.clear(); }

 private:
  struct Entry {
    bool refused = false;
    cuda::OwnedCapture captured;
  };
  Context context_;
  std::function<std::string(Key)> name_;
  std::map<Key, Entry> entries_;
  int64_t launches_ = 0;
};

}  // namespace permafrost
