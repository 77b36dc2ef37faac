#pragma once
#include <mpi.h>

#include <string_view>

namespace permafrost {

/// Throws kPeer with MPI's own words when `code` is not MPI_SUCCESS: "mpi: MPI_Isend of <what>: <words>".
void mpi_check(int code, std::string_view function, std::string_view what);

}  // namespace permafrost
