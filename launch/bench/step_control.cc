#include "launch/bench/step_control.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <sstream>
#include <vector>

namespace permafrost {

namespace {

[[noreturn]] void bad_line(const std::string& line) {
  fail(ErrorKind::kConfig,
       "bench step: expected a line 'run N' (N steps, 1 and up), 'memory', 'checkpoint' or 'quit'; got '", line, "'");
}

void answer(std::ostream& out, const OrderedJson& json) { out << json_text(json) << std::endl; }

/// Rank 0's next command; what cannot be done is answered here. kWait when nothing was read.
StepCommand read_command(LineReader& lines, const StepBench& bench, std::chrono::milliseconds patience,
                         std::ostream& out) {
  const std::optional<std::string> line = lines.next(patience);
  if (!line) return {lines.at_end() ? StepCommand::kQuit : StepCommand::kWait, 0};
  try {
    const StepCommand command = parse_step_command(*line);
    bench.require_steps(command.steps);
    return command;
  } catch (const Error& error) {
    answer(out, {{"error", error.what()}});
    return {};
  }
}

OrderedJson serve(StepBench& bench, const StepCommand& command) {
  if (command.kind == StepCommand::kMemory) return bench.memory().json();
  if (command.kind == StepCommand::kCheckpoint) return bench.checkpoint().json();
  OrderedJson json = bench.run(command.steps).json();
  if (json["first_step"] == 0) json["to_first_step_seconds"] = bench.to_first_step().json();
  return json;
}

}  // namespace

StepCommand parse_step_command(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  StepCommand command;
  if (words.size() == 1 && words[0] == "memory") command.kind = StepCommand::kMemory;
  if (words.size() == 1 && words[0] == "checkpoint") command.kind = StepCommand::kCheckpoint;
  if (words.size() == 1 && words[0] == "quit") command.kind = StepCommand::kQuit;
  if (words.size() == 2 && words[0] == "run") {
    const char* end = words[1].data() + words[1].size();
    const auto read = std::from_chars(words[1].data(), end, command.steps);
    if (read.ec == std::errc() && read.ptr == end && command.steps > 0) command.kind = StepCommand::kRun;
  }
  if (command.kind == StepCommand::kWait) bad_line(line);
  return command;
}

std::optional<std::string> LineReader::next(std::chrono::milliseconds patience) {
  while (true) {
    const size_t end = rest_.find('\n');
    if (end != std::string::npos || (ended_ && !rest_.empty())) {
      std::string line = rest_.substr(0, end);
      rest_.erase(0, end == std::string::npos ? end : end + 1);
      return line;
    }
    if (ended_) return std::nullopt;
    pollfd waited{descriptor_, POLLIN, 0};
    const int ready = poll(&waited, 1, static_cast<int>(patience.count()));
    if (ready == 0 || (ready < 0 && errno == EINTR)) return std::nullopt;
    std::array<char, 4096> buffer;
    const ssize_t count = ready < 0 ? -1 : read(descriptor_, buffer.data(), buffer.size());
    if (count < 0) fail(ErrorKind::kStorage, "bench step: commands must be readable; got ", std::strerror(errno));
    if (count == 0) ended_ = true;
    rest_.append(buffer.data(), static_cast<size_t>(count));
  }
}

void serve_step_commands(StepBench& bench, Runtime& runtime, int descriptor, std::chrono::milliseconds patience,
                         std::ostream& out) {
  const auto group = runtime.world.split(0, runtime.rank(), "bench step: commands", Waiting::kSleeping);
  LineReader lines(descriptor);
  while (true) {
    StepCommand command;
    if (runtime.first()) command = read_command(lines, bench, patience, out);
    std::array<int64_t, 2> words{command.kind, command.steps};
    group->broadcast(flat(std::span<int64_t>(words)), 0, StreamView::caller(), "bench step: command").wait();
    command = {static_cast<StepCommand::Kind>(words[0]), words[1]};
    if (command.kind == StepCommand::kQuit) return;
    if (command.kind == StepCommand::kWait) continue;
    const OrderedJson json = serve(bench, command);
    if (runtime.first()) answer(out, json);
  }
}

}  // namespace permafrost
