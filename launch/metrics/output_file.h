#pragma once
#include <filesystem>
#include <string_view>

#include "core/base/handle.h"

namespace permafrost {

struct DescriptorTraits {
  using Type = int;
  static Type null() { return -1; }
  static void close(Type descriptor) noexcept;
};

/// A file that only grows. What was appended is with the operating system when `append` returns, in one piece unless
/// the disk is full, so a reader or a crash sees whole lines.
class OutputFile {
 public:
  /// Opens for appending, makes it if need be. Errors: kStorage with path and reason.
  explicit OutputFile(std::filesystem::path path);
  /// Errors: kStorage with path and reason.
  void append(std::string_view data);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  Handle<DescriptorTraits> descriptor_;
};

}  // namespace permafrost
