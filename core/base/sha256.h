#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <string>

namespace permafrost {

/// Incremental SHA-256 (FIPS 180-4, by OpenSSL).
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(const void* data, size_t bytes);
  /// Lower-case hexadecimal digest; the object must not be used afterwards.
  std::string finish();
  /// The digest itself; afterwards the object is as new, which is cheaper than another one where many short pieces are
  /// hashed.
  std::array<std::byte, 32> finish_and_restart();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Lower-case hexadecimal SHA-256 of one piece of memory.
std::string sha256(const void* data, size_t bytes);

}  // namespace permafrost
