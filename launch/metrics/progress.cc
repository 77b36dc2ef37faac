#include "launch/metrics/progress.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

namespace permafrost {

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto total = static_cast<int64_t>(std::ceil(seconds));
  const int64_t days = total / 86400, hours = total / 3600 % 24, minutes = total / 60 % 60;
  std::ostringstream out;
  out << std::setfill('0');
  if (days > 0)
    out << days << " d " << std::setw(2) << hours << ":" << std::setw(2) << minutes;
  else if (hours > 0)
    out << hours << ":" << std::setw(2) << minutes << ":" << std::setw(2) << total % 60;
  else
    out << minutes << ":" << std::setw(2) << total % 60;
  return out.str();
}

std::string Progress::line(const StepMetrics& metrics) const {
  std::ostringstream out;
  out << "step " << metrics.step + 1 << "/" << options_.steps << "  loss " << std::setprecision(5) << metrics.loss
      << "  lr " << std::setprecision(3) << metrics.lr << "  norm " << std::setprecision(3) << metrics.grad_norm << "  "
      << std::setprecision(3) << metrics.samples_per_s << " samples/s";
  const int64_t left = options_.steps - metrics.step - 1;
  if (left > 0) out << "  ETA " << (step_s_ > 0 ? duration_text(step_s_ * static_cast<double>(left)) : "?");
  return out.str();
}

void Progress::step(const StepMetrics& metrics, double elapsed_s) {
  if (seen_ > 0) {
    const double taken_s = elapsed_s - last_elapsed_s_;
    const double weight = std::max(0.1, 1.0 / static_cast<double>(seen_));  // a plain mean over the first ten
    step_s_ += weight * (taken_s - step_s_);
  }
  ++seen_;
  last_elapsed_s_ = elapsed_s;
  const bool last = metrics.step + 1 >= options_.steps;
  if (options_.terminal) {
    out_ << "\r\x1b[K" << line(metrics).substr(0, static_cast<size_t>(std::max(1, options_.columns - 1))) << std::flush;
    open_line_ = true;
    if (last) end_line();
  } else if (last || metrics.step == options_.first_step || (metrics.step + 1) % options_.every_steps == 0) {
    out_ << line(metrics) << "\n" << std::flush;
  }
}

void Progress::end_line() {
  if (open_line_) out_ << "\n" << std::flush;
  open_line_ = false;
}

}  // namespace permafrost
