#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/trace/recorder.h"
#include "parallel/group/group.h"

namespace permafrost {

/// What the file says of a rank beside its spans.
struct TraceProcess {
  int rank = 0, ranks = 1;
  int64_t origin = 0;  ///< of trace_clock(), on this rank's machine: time 0 of the file
  std::string name;
  std::vector<std::string> labels;  ///< what one must know to read its spans
};

using TextSink = std::function<void(std::string_view)>;

/// Gives the events of one rank, in Chrome's trace event format, to `sink` in pieces of about a MiB. `first`: nothing
/// stands before them; otherwise a comma comes first. Spans that are open yet end now and say so.
void write_events(const Trace& trace, const TraceProcess& process, bool first, const TextSink& sink);

/// Collective. One file with the events of all ranks, written by rank 0, where it appears when it is whole. `about`:
/// an object of rank 0, the file's otherData. Errors on rank 0, for which the others do not wait: kStorage.
void write_trace_file(const std::string& path, const Trace& trace, const TraceProcess& process,
                      const OrderedJson& about, Group& world);

/// The same of this rank alone.
void write_own_trace_file(const std::string& path, const Trace& trace, const TraceProcess& process,
                          const OrderedJson& about);

/// "runs/trace.json" -> "runs/trace.rank3.json"; of one rank the path itself.
std::string own_trace_path(const std::string& path, int rank, int ranks);

/// Errors: kStorage unless a file can be made there; who: the command.
void require_writable_trace(std::string_view who, const std::string& path);

}  // namespace permafrost
