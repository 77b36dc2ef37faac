// The two symbols of libpermafrost_mpi.so; see mpi_loader.cc.
#include "parallel/group/mpi/mpi_environment.h"

#define PERMAFROST_EXPORT __attribute__((visibility("default")))

extern "C" PERMAFROST_EXPORT int permafrost_mpi_version() { return permafrost::kMpiLibraryVersion; }

extern "C" PERMAFROST_EXPORT permafrost::MpiEnvironment* permafrost_open_mpi(const permafrost::MpiOptions* options) {
  return new permafrost::MpiLibrary(*options);
}
