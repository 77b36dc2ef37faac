#include "parallel/run/program_graphs.h"

namespace permafrost {

bool ProgramGraphs::run(std::pair<size_t, int> key, const std::function<void()>& give) {
  Entry& entry = entries_[key];
  if (!entry.ran) {
    give();
    return entry.ran = true;
  }
  cuda::Queue& queue = *context_.stream.queue();
  const bool captures = !entry.captured;
  if (captures) {
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
    entry.captured.reset(cuda::end_capture(queue));
  }
  cuda::launch(queue, *entry.captured);
  ++launches_;
  return captures;
}

}  // namespace permafrost
