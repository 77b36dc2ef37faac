#pragma once
#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

#include "parallel/group/mpi/mpi_group.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {

class MpiLibrary final : public MpiEnvironment {
 public:
  explicit MpiLibrary(const MpiOptions& options);
  ~MpiLibrary() override;
  Group& world() override { return *world_; }
  std::unique_ptr<Group> plain() override;
  std::string library_version() const override;
  std::byte* allocate_shared(Group& group, std::string_view name, int64_t bytes) override;
  void close() override;

 private:
  std::shared_ptr<MpiShared> shared_;
  MPI_Comm watch_comm_ = MPI_COMM_NULL;
  std::unique_ptr<MpiGroup> world_;
  struct Window {
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Win window = MPI_WIN_NULL;
  };
  std::vector<Window> windows_;
};

}  // namespace permafrost
