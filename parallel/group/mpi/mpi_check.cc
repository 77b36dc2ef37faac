#include "parallel/group/mpi/mpi_check.h"

#include <array>

#include "core/base/check.h"

namespace permafrost {

Error mpi_error(int code, std::string_view function, std::string_view what) {
  std::array<char, MPI_MAX_ERROR_STRING> words{};
  int length = 0;
  std::string text;
  if (MPI_Error_string(code, words.data(), &length) == MPI_SUCCESS)
    text.assign(words.data(), static_cast<size_t>(length));
  else
    text = concat("error code ", code);
  return Error(ErrorKind::kPeer, concat("mpi: ", function, " of ", what, ": ", text));
}

void mpi_check(int code, std::string_view function, std::string_view what) {
  if (code != MPI_SUCCESS) throw mpi_error(code, function, what);
}

}  // namespace permafrost
