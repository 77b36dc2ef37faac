#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/base/json.h"

namespace permafrost {

/// Walks a JSON file that is a list of entries, or an object with lists of entries below its keys, or an object whose
/// members are the entries. Entries are handed over while the file is parsed and then dropped, so that memory never
/// holds the tree.
struct JsonEntries {
  std::filesystem::path file;
  /// Which keys of the top level are of interest; the others are dropped unread.
  std::function<bool(const std::string& key)> wants;
  /// One element of the list below `key` ("" when the file is a list), or (`in_list` false) a member that is no list.
  /// An entry may be a value of any type: it is for whoever takes it to refuse what is no object.
  std::function<void(const std::string& key, bool in_list, const Json& entry)> take;
  /// Said of each wanted list, empty ones too.
  std::function<void(const std::string& list)> begin = {};

  /// Returns what is left: of an object, the wanted members that are neither list nor object. Errors: kData as
  /// parse_json_file, for a file that is neither list nor object, and what `take` throws.
  Json read() const;
};

/// Fields of an entry that must be there. Errors: kData of the form
/// "<who>: each <what> must have a whole number '<key>'; got <entry> [file=…]".
class JsonFields {
 public:
  JsonFields(std::string who, const std::filesystem::path& file)
      : who_(std::move(who)), place_(" [file=" + file.string() + "]") {}

  uint64_t number(const Json& entry, const char* key, const char* what) const;
  std::string text(const Json& entry, const char* key, const char* what) const;
  /// A number or a text, as text.
  std::string number_or_text(const Json& entry, const char* key, const char* what) const;
  const Json& list(const Json& entry, const char* key, const char* what) const;
  /// The entry's value, of whatever type; null when the entry is no object or lacks it.
  static const Json* find(const Json& entry, const char* key);

  /// " [file=…]", the end of every message.
  const std::string& place() const { return place_; }
  [[noreturn]] void refuse(const char* what, const std::string& must, const Json& entry) const;

 private:
  std::string who_, place_;
};

}  // namespace permafrost
