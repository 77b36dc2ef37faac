#pragma once
#include <cstdint>
#include <ostream>
#include <string>

#include "launch/metrics/jsonl.h"

namespace permafrost {

/// "1:05", "12:00:07", "3 d 04:00".
std::string duration_text(double seconds);

/// Says how far a run is: on a terminal one line that is written over, in a log one plain line every so many steps.
/// Both have the last step.
class Progress {
 public:
  struct Options {
    int64_t first_step = 0;   ///< where this run begins (resumed runs begin later)
    int64_t steps = 0;        ///< where it ends
    int64_t every_steps = 1;  ///< between plain lines
    bool terminal = false;
    int columns = 80;  ///< of the terminal; longer lines are cut there
  };
  Progress(std::ostream& out, const Options& options) : out_(out), options_(options) {}

  /// After a step, with the time the run has taken so far. The estimate of what is left weighs recent steps more, and
  /// leaves out the first step of this run, which also pays for starting.
  void step(const StepMetrics& metrics, double elapsed_s);
  /// Ends the line of a terminal, so that other output starts on a new one.
  void end_line();

 private:
  std::string line(const StepMetrics& metrics) const;
  std::ostream& out_;
  Options options_;
  double last_elapsed_s_ = 0;
  double step_s_ = 0;  // running mean; 0 until two steps are done
  int64_t seen_ = 0;
  bool open_line_ = false;
};

}  // namespace permafrost
