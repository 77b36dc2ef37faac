#pragma once
#include <sstream>
#include <string>
#include <vector>

#include "core/weights/safetensors.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// One committed golden file (tests/goldens/README.md). For test programs that link permafrost_weights.
class Golden {
 public:
  explicit Golden(const std::string& file) : reader_(golden_path(file)) {}

  bool has(const std::string& name) const { return reader_.find(name) != nullptr; }
  /// As stored: f32, f64, i64 or u8.
  OwnedTensor tensor(const std::string& name) const {
    const StoredTensor& stored = reader_.at(name);
    OwnedTensor owned(stored.dtype.value(), stored.shape);
    reader_.read_tensor(name, owned);
    return owned;
  }
  std::vector<double> values(const std::string& name) const { return values_of(tensor(name)); }
  Shape shape(const std::string& name) const { return reader_.at(name).shape; }

  std::string text(const std::string& key) const {
    const auto found = reader_.metadata().find(key);
    if (found == reader_.metadata().end())
      fail(ErrorKind::kInvalidArgument, "Golden: metadata must have '", key, "'; got none in ", reader_.path());
    return found->second;
  }
  double number(const std::string& key) const { return std::stod(text(key)); }
  /// The case names of a file of several cases.
  std::vector<std::string> cases() const {
    std::vector<std::string> names;
    std::istringstream list(text("cases"));
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
    return names;
  }

 private:
  SafetensorsReader reader_;
};

}  // namespace permafrost::testing
