#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/base/handle.h"

namespace permafrost {

/// What HDF5's identifiers are released by.
struct Hdf5FileTraits {
  using Type = int64_t;
  static Type null() { return -1; }
  static void close(Type id) noexcept;
};

/// Numbers a shard is made of, all stored little-endian.
enum class Hdf5Number { kU8, kI32, kU32, kI64, kU64, kF32 };
template <typename T>
constexpr Hdf5Number hdf5_number() {
  if constexpr (std::is_same_v<T, float>) return Hdf5Number::kF32;
  if constexpr (std::is_same_v<T, uint8_t> || std::is_same_v<T, char>) return Hdf5Number::kU8;
  if constexpr (std::is_same_v<T, int32_t>) return Hdf5Number::kI32;
  if constexpr (std::is_same_v<T, uint32_t>) return Hdf5Number::kU32;
  if constexpr (std::is_same_v<T, int64_t>) return Hdf5Number::kI64;
  return Hdf5Number::kU64;
}

/// An HDF5 file with datasets of one dimension and attributes of the file. The library is not safe for threads, so all
/// calls in the process take turns; reading by offset needs none of them (see offset_of). Errors: kStorage when writing
/// fails, kData when a file is not what it should be; both name file and dataset and say what HDF5 says.
class Hdf5File {
 public:
  /// The same contents give the same bytes: no times are stored.
  static Hdf5File create(const std::filesystem::path& path);
  static Hdf5File open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }

  template <typename T>
  void write(const std::string& dataset, std::span<const T> values) {
    write_values(dataset, hdf5_number<T>(), values.data(), static_cast<int64_t>(values.size()));
  }
  void write_attribute(const std::string& name, const std::string& value);
  void write_attribute(const std::string& name, int64_t value);
  /// Everything is with the operating system; afterwards the object is empty.
  void close();

  bool has(const std::string& dataset) const;
  int64_t elements(const std::string& dataset) const;
  /// All of a dataset, whose numbers must be of this type.
  template <typename T>
  std::vector<T> read(const std::string& dataset) const {
    std::vector<T> values(static_cast<size_t>(elements(dataset)));
    read_values(dataset, hdf5_number<T>(), values.data());
    return values;
  }
  std::string text_attribute(const std::string& name) const;
  int64_t number_attribute(const std::string& name) const;
  /// Where the bytes of a dataset of bytes lie in the file, one behind the other; -1 when it has none.
  int64_t offset_of(const std::string& dataset) const;

 private:
  explicit Hdf5File(std::filesystem::path path) : path_(std::move(path)) {}
  void make_group(const std::string& dataset);
  void write_values(const std::string& dataset, Hdf5Number number, const void* values, int64_t count);
  void read_values(const std::string& dataset, Hdf5Number number, void* values) const;

  std::filesystem::path path_;
  Handle<Hdf5FileTraits> file_;
};

}  // namespace permafrost
