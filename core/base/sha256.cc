#include "core/base/sha256.h"

#include <openssl/evp.h>

#include "core/base/check.h"

namespace permafrost {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (!state_->context || EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1)
    fail(ErrorKind::kInternal, "Sha256: OpenSSL could not start a SHA-256 digest");
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(const void* data, size_t bytes) {
  if (EVP_DigestUpdate(state_->context, data, bytes) != 1) fail(ErrorKind::kInternal, "Sha256: update failed");
}

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_DigestFinal_ex(state_->context, digest, &length) != 1) fail(ErrorKind::kInternal, "Sha256: finish failed");
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < length; ++i) {
    text += kHex[digest[i] >> 4];
    text += kHex[digest[i] & 15];
  }
  return text;
}

std::array<std::byte, 32> Sha256::finish_and_restart() {
  std::array<std::byte, 32> digest{};
  if (EVP_DigestFinal_ex(state_->context, reinterpret_cast<unsigned char*>(digest.data()), nullptr) != 1 ||
      EVP_DigestInit_ex(state_->context, nullptr, nullptr) != 1)
    fail(ErrorKind::kInternal, "Sha256: finish and restart failed");
  return digest;
}

std::string sha256(const void* data, size_t bytes) {
  Sha256 hash;
  hash.update(data, bytes);
  return hash.finish();
}

}  // namespace permafrost
