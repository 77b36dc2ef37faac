#pragma once
#include <filesystem>
#include <string>

#include "core/base/json.h"

namespace permafrost {

/// The number or text by which a file names an image or a question; 5 and "5" are the same.
struct SampleId {
  std::string text;
  bool is_number = false;  ///< how it is written

  friend bool operator==(const SampleId& a, const SampleId& b) { return a.text == b.text; }
};

/// One object in a JSON file, with what messages say about it.
struct JsonEntry {
  const Json& value;
  const char* who;                    ///< "results", "annotations"
  const std::filesystem::path& file;  ///< for " [file=...]"

  bool has(const char* key) const { return value.is_object() && value.contains(key); }
  /// Errors (all three): kData naming the key, what came and the file.
  SampleId id(const char* key) const;
  std::string text(const char* key) const;
  const Json& list(const char* key) const;

  [[noreturn]] void refuse(const std::string& expected) const;
};

}  // namespace permafrost
