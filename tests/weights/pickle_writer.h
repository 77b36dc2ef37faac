#pragma once
#include <string>
#include <vector>

#include "tests/weights/zip_bytes.h"

namespace permafrost::testing {

// Pickles by hand, also ones that Python would not write. Each function gives the opcodes that push one value.

inline std::string p_text(const std::string& text) {
  std::string out = "X";
  put(out, text.size(), 4);
  return out + text;
}
inline std::string p_int(int64_t value) {
  std::string out = "\x8a\x08";
  put(out, static_cast<uint64_t>(value), 8);
  return out;
}
inline std::string p_tuple(const std::vector<std::string>& items) {
  std::string out = "(";
  for (const std::string& item : items) out += item;
  return out + "t";
}
inline std::string p_ints(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(p_int(value));
  return p_tuple(items);
}
inline std::string p_global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string p_call(const std::string& function, const std::string& arguments) {
  return function + arguments + "R";
}
/// Keys and values in turn.
inline std::string p_dict(const std::vector<std::string>& items) {
  std::string out = "}(";
  for (const std::string& item : items) out += item;
  return out + "u";
}
inline std::string p_storage(const std::string& type, const std::string& key, int64_t elements) {
  return p_tuple({p_text("storage"), p_global("torch", type), p_text(key), p_text("cpu"), p_int(elements)}) + "Q";
}
inline std::string p_tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& size,
                            const std::vector<int64_t>& stride) {
  return p_call(p_global("torch._utils", "_rebuild_tensor_v2"),
                p_tuple({storage, p_int(offset), p_ints(size), p_ints(stride), "\x89", "}"}));
}
/// A whole pickle with this root.
inline std::string p_file(const std::string& root) { return "\x80\x02" + root + "."; }

}  // namespace permafrost::testing
