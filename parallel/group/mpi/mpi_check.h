#pragma once
#include <mpi.h>

#include <string_view>

#include "core/base/error.h"

namespace permafrost {

/// kPeer with MPI's own words: "mpi: MPI_Isend of <what>: <words>".
Error mpi_error(int code, std::string_view function, std::string_view what);
/// Throws it when `code` is not MPI_SUCCESS.
void mpi_check(int code, std::string_view function, std::string_view what);

}  // namespace permafrost
