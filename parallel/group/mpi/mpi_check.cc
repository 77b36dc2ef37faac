#include "parallel/group/mpi/mpi_check.h"

#include <array>

#include "core/base/check.h"

namespace permafrost {

void mpi_check(int code, std::string_view function, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> words{};
  int length = 0;
  if (MPI_Error_string(code, words.data(), &length) != MPI_SUCCESS)
    fail(ErrorKind::kPeer, "mpi: ", function, " of ", what, ": error code ", code);
  fail(ErrorKind::kPeer, "mpi: ", function, " of ", what, ": ",
       std::string_view(words.data(), static_cast<size_t>(length)));
}

}  // namespace permafrost
