#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "parallel/group/group.h"
#include "parallel/group/moved_bytes.h"

namespace permafrost {

/// Any of these in the environment means that a launcher started this process. Only launch/ reads the environment.
inline constexpr std::array kLauncherVariables = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};

struct MpiOptions {
  std::filesystem::path library;  ///< empty: libpermafrost_mpi.so beside the executable or in ../lib
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};  ///< longest wait of one call for the other ranks
  int64_t chunk_bytes = int64_t{1} << 30;                       ///< largest single message, <= 2^31 - 1; tests lower it
  MovedBytes* moved = nullptr;  ///< counts what this rank receives; outlives the environment
};

/// MPI from initialisation to finalisation; one per process. Groups must be gone before it.
class MpiEnvironment {
 public:
  virtual ~MpiEnvironment() = default;
  /// All ranks the launcher started.
  virtual Group& world() = 0;
  /// The MPI library's own all_gather, reduce_scatter and all_reduce over all ranks, to measure ours against; it has no
  /// other methods (kNotBuilt) and takes at most 2^31 - 1 elements (kInvalidArgument). Collective.
  virtual std::unique_ptr<Group> plain() = 0;
  /// First line of the MPI library's own name.
  virtual std::string library_version() const = 0;
  /// Memory that all ranks of `group` see (an MPI shared window): `group` is one of this environment's, and its ranks
  /// share a machine. Collective. Zero-filled; belongs to the environment and lives until close(). Rank 0 looks for
  /// room in the file system behind it first, and takes all of it at once, so that no later touch can fail.
  /// Errors, the same on all ranks: kStorage with the bytes needed and available.
  virtual std::byte* allocate_shared(Group& group, std::string_view name, int64_t bytes) = 0;
  /// Orderly end: waits for all ranks, then finalises MPI. Without it (an exception is under way) the destructor
  /// leaves MPI alone and the launcher ends the other ranks.
  virtual void close() = 0;
};

/// Loads the MPI backend, which is a library of its own so that one rank starts on a machine without MPI, and
/// initialises MPI (thread level multiple). Starts a thread that listens for failing peers.
/// Errors: kNotBuilt when the library is missing or does not load, naming the CMake option; kPeer when MPI refuses.
std::unique_ptr<MpiEnvironment> open_mpi(const MpiOptions& options = {});

/// What the loader and the library must agree on; both are compiled from this header.
inline constexpr int kMpiLibraryVersion = 3;

}  // namespace permafrost
