#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace permafrost {

/// What kind of thing went wrong; decides the exit code of the program (see `exit_code`).
enum class ErrorKind {
  kInvalidArgument,  ///< a caller broke a contract
  kShapeMismatch,    ///< tensor shapes, dtypes or devices do not fit an operation
  kConfig,           ///< command line or configuration
  kWeights,          ///< weight files refused
  kData,             ///< datasets, images, tokenizers refused
  kStorage,          ///< reading or writing files failed (disk full, permissions)
  kNonFinite,        ///< NaN or infinity where numbers must be finite
  kPeer,             ///< another rank failed, or a collective did
  kTimeout,          ///< something waited for too long
  kNotBuilt,         ///< this build lacks a feature; the message names the option
  kStopped,          ///< stopped by a signal after a checkpoint was written
  kInternal,         ///< a bug in Permafrost
};

std::string_view to_string(ErrorKind kind);

/// Exit code of the program for a kind: 0 done, 2 usage or config, 3 weights or data refused, 4 storage,
/// 5 non-finite, 6 peer or collective, 7 not built, 8 stopped by a signal, 70 internal.
int exit_code(ErrorKind kind);

/// The only exception type thrown on purpose. Message grammar:
///   <who>: <what was expected>; got <what came> [param=<name>] [rank r/N] [step s]
/// Messages quote files of unknown origin, so what a terminal would act on is escaped (`printable`).
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message);
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace permafrost
