#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

#include "launch/bench/bench_step.h"

namespace permafrost {

/// What a line asks for.
struct StepCommand {
  enum Kind : int64_t { kWait, kRun, kMemory, kCheckpoint, kQuit };
  Kind kind = kWait;
  int64_t steps = 0;  ///< kRun
};

/// "run N", "memory", "checkpoint" or "quit", with any spaces around words.
/// Errors: kConfig saying what was expected.
StepCommand parse_step_command(const std::string& line);

/// Lines of a file descriptor, read without spinning.
class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}
  /// The next line without its end; none within `patience`. At the end of input, and behind it, at_end() is true and
  /// the answer none; what stands behind the last line end is a line. Errors: kStorage with the system's reason.
  std::optional<std::string> next(std::chrono::milliseconds patience);
  bool at_end() const { return ended_ && rest_.empty(); }

 private:
  int descriptor_;
  bool ended_ = false;
  std::string rest_;
};

/// Serves commands that rank 0 reads from `descriptor` until "quit" or the end of input. Rank 0 answers each with a
/// line of JSON on `out`; a line that is no command, or that asks for more steps than there are, with {"error": ...}.
/// Between commands all ranks sleep. Collective. patience: after which ranks hear that nothing was read yet, shorter
/// than they wait for each other.
void serve_step_commands(StepBench& bench, Runtime& runtime, int descriptor, std::chrono::milliseconds patience,
                         std::ostream& out);

}  // namespace permafrost
