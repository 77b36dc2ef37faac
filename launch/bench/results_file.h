#pragma once
#include <fstream>
#include <string>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost::bench {

/// The file of --json: one JSON object per line, each there as soon as it is written. Nothing without a path.
class ResultsFile {
 public:
  /// command: "bench kernels", for messages. Errors: kStorage.
  ResultsFile(std::string command, std::string path) : command_(std::move(command)), path_(std::move(path)) {
    if (path_.empty()) return;
    file_.open(path_, std::ios::trunc);
    if (!file_)
      fail(ErrorKind::kStorage, command_, ": a file that can be written was expected; got ", path_, " [param=--json]");
  }
  bool wanted() const { return !path_.empty(); }
  void write(const OrderedJson& line) {
    if (wanted()) file_ << json_text(line) << "\n" << std::flush;
  }
  /// Errors: kStorage where a line could not be written.
  void close() {
    if (!wanted()) return;
    file_.close();
    if (!file_)
      fail(ErrorKind::kStorage, command_, ": the results were to be written; writing failed on ", path_,
           " [param=--json]");
  }

 private:
  std::string command_, path_;
  std::ofstream file_;
};

}  // namespace permafrost::bench
