#include "parallel/run/work_graphs.h"

#include <glog/logging.h>

namespace permafrost {

namespace {

/// What `give` gives, as one piece of work.
cuda::OwnedCapture capture(cuda::Queue& queue, const std::function<void()>& give) {
  cuda::begin_capture(queue);
  try {
    give();
  } catch (...) {
    try {  // ends the capture, whatever it holds
      cuda::destroy_captured(cuda::end_capture(queue));
    } catch (const Error&) {
    }
    throw;
  }
  return cuda::OwnedCapture(cuda::end_capture(queue));
}

}  // namespace

void WorkGraphs::run(Key key, const std::function<void()>& give) {
  Entry& entry = entries_[key];
  cuda::Queue& queue = *context_.stream.queue();
  if (entry.captured) {
    cuda::launch(queue, *entry.captured);
    ++launches_;
    return;
  }
  give();
  if (entry.refused) return;
  try {
    entry.captured = capture(queue, give);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInternal) throw;  // not the device's
    entry.refused = true;
    LOG(WARNING) << "device: " << name_(key) << " is given kernel by kernel, not as a CUDA graph: " << error.what();
  }
}

}  // namespace permafrost
