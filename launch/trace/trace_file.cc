#include "launch/trace/trace_file.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include "core/base/check.h"
#include "core/weights/atomic_file.h"

namespace permafrost {

namespace {

constexpr size_t kPiece = size_t{1} << 20;

/// Gathers text into pieces.
class Pieces {
 public:
  Pieces(const TextSink& sink, bool first) : sink_(sink), first_(first) {}
  /// Where an event begins.
  Pieces& event() {
    if (!std::exchange(first_, false)) *this << ",\n";
    return *this;
  }
  Pieces& operator<<(std::string_view text) {
    text_ += text;
    if (text_.size() >= kPiece) flush();
    return *this;
  }
  void flush() {
    if (!text_.empty()) sink_(text_);
    text_.clear();
  }

 private:
  const TextSink& sink_;
  bool first_;
  std::string text_;
};

/// Nanoseconds in microseconds, all digits.
std::string microseconds(int64_t nanoseconds) {
  std::array<char, 40> text{};
  const bool negative = nanoseconds < 0;
  const auto size = static_cast<uint64_t>(negative ? -nanoseconds : nanoseconds);
  const int length =
      std::snprintf(text.data(), text.size(), "%s%llu.%03llu", negative ? "-" : "",
                    static_cast<unsigned long long>(size / 1000), static_cast<unsigned long long>(size % 1000));
  return {text.data(), static_cast<size_t>(length)};
}

/// What all spans of a name have: `"name":...,"cat":...` and its args, without the closing brackets.
std::string common_part(const TraceName& name) {
  const std::string args = name.args.is_null() ? "{}" : json_text(name.args);
  return concat("\"name\":", json_text(Json(name.name)), ",\"cat\":", json_text(Json(name.category)),
                ",\"args\":", args.substr(0, args.size() - 1));
}

void write_metadata(Pieces& out, const TraceProcess& process, const Trace& trace) {
  const auto say = [&](const char* what, const std::optional<int>& thread, const OrderedJson& args) {
    OrderedJson event{{"ph", "M"}, {"name", what}, {"pid", process.rank}};
    if (thread) event["tid"] = *thread;
    event["args"] = args;
    out.event() << json_text(event);
  };
  say("process_name", {}, {{"name", process.name}});
  say("process_sort_index", {}, {{"sort_index", process.rank}});
  std::string labels;
  for (const std::string& label : process.labels) labels += (labels.empty() ? "" : "; ") + label;
  if (!labels.empty()) say("process_labels", {}, {{"labels", labels}});
  for (const TraceLane& lane : trace.lanes()) {
    say("thread_name", lane.thread_id(), {{"name", lane.title()}});
    say("thread_sort_index", lane.thread_id(), {{"sort_index", lane.thread_id()}});
  }
}

std::string file_begin() { return "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"; }

std::string file_end(const OrderedJson& about) { return concat("\n],\"otherData\":", json_text(about), "}\n"); }

/// The other ranks' pieces, in the order of ranks: each its size, then itself; 0 ends those of a rank.
void send_events(const Trace& trace, const TraceProcess& process, Group& world) {
  const auto send = [&](std::span<const std::byte> bytes) {
    auto* data = const_cast<std::byte*>(bytes.data());  // a tensor may be written to; this one is only read
    world.send(Tensor(data, DType::kU8, Shape{std::ssize(bytes)}), 0, StreamView::caller(), "trace").wait();
  };
  const auto send_size = [&](int64_t size) { send(std::as_bytes(std::span(&size, 1))); };
  write_events(trace, process, /*first=*/false, [&](std::string_view piece) {
    send_size(std::ssize(piece));
    send(std::as_bytes(std::span(piece)));
  });
  send_size(0);
}

void receive_events(int from, Group& world, const TextSink& sink) {
  std::string piece;
  while (true) {
    int64_t size = 0;
    world.recv(Tensor(&size, DType::kU8, Shape{sizeof size}), from, StreamView::caller(), "trace").wait();
    if (size == 0) return;
    piece.resize(static_cast<size_t>(size));
    world.recv(Tensor(piece.data(), DType::kU8, Shape{size}), from, StreamView::caller(), "trace").wait();
    sink(piece);
  }
}

}  // namespace

void write_events(const Trace& trace, const TraceProcess& process, bool first, const TextSink& sink) {
  Pieces out(sink, first);
  write_metadata(out, process, trace);
  std::vector<std::string> common;
  for (const TraceName& name : trace.names()) common.push_back(common_part(name));
  const int64_t now = trace_clock();
  for (const TraceLane& lane : trace.lanes()) {
    const std::string who = concat("{\"ph\":\"X\",\"pid\":", process.rank, ",\"tid\":", lane.thread_id(), ",\"ts\":");
    const size_t spans = lane.spans();
    for (size_t i = 0; i < spans; ++i) {
      const TraceSpan& span = lane.span(i);
      const TraceName& name = trace.names()[span.name];
      const int64_t ended = span.end.load(std::memory_order_acquire);
      const bool open = ended == TraceSpan::kOpen;
      const int64_t end = open ? std::max(now, span.begin) : ended;
      out.event() << who << microseconds(span.begin - process.origin) << ",\"dur\":" << microseconds(end - span.begin)
                  << "," << common[span.name];
      std::string_view comma = name.args.is_null() || name.args.empty() ? "" : ",";
      if (!name.number_key.empty()) {
        out << comma << "\"" << name.number_key << "\":" << std::to_string(span.number);
        comma = ",";
      }
      if (open) out << comma << "\"unfinished\":true";
      out << "}}";
    }
  }
  out.flush();
}

void write_trace_file(const std::string& path, const Trace& trace, const TraceProcess& process,
                      const OrderedJson& about, Group& world) {
  if (world.rank() != 0) return send_events(trace, process, world);
  std::optional<Error> failure;
  std::optional<AtomicFile> file;
  // What other ranks send is taken also where it cannot be written.
  const auto attempt = [&](auto action) {
    if (failure) return;
    try {
      action();
    } catch (const Error& error) {
      failure = error;
    }
  };
  const TextSink sink = [&](std::string_view text) { attempt([&] { file->write(text.data(), text.size()); }); };
  attempt([&] { file.emplace(path); });
  sink(file_begin());
  write_events(trace, process, /*first=*/true, sink);
  for (int rank = 1; rank < world.size(); ++rank) receive_events(rank, world, sink);
  sink(file_end(about));
  attempt([&] { file->commit(); });
  if (failure) throw Error(*failure);
}

void write_own_trace_file(const std::string& path, const Trace& trace, const TraceProcess& process,
                          const OrderedJson& about) {
  AtomicFile file(path);
  const TextSink sink = [&](std::string_view text) { file.write(text.data(), text.size()); };
  sink(file_begin());
  write_events(trace, process, /*first=*/true, sink);
  sink(file_end(about));
  file.commit();
}

std::string own_trace_path(const std::string& path, int rank, int ranks) {
  if (ranks == 1) return path;
  const std::filesystem::path whole(path);
  return (whole.parent_path() / (whole.stem().string() + ".rank" + std::to_string(rank) + whole.extension().string()))
      .string();
}

void require_writable_trace(std::string_view who, const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    fail(ErrorKind::kStorage, who, ": --trace must name a file that can be written; got ", path, ": ", why);
  };
  if (std::filesystem::is_directory(path)) refuse("is a folder");
  try {
    const AtomicFile probe(path);
  } catch (const Error& error) {
    refuse(error.what());
  }
}

}  // namespace permafrost
