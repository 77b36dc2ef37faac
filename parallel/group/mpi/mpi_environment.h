#pragma once
#include <mpi.h>

#include <memory>
#include <string>

#include "parallel/group/mpi/mpi_group.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {

class MpiLibrary final : public MpiEnvironment {
 public:
  explicit MpiLibrary(const MpiOptions& options);
  ~MpiLibrary() override;
  Group& world() override { return *world_; }
  std::string library_version() const override;
  void close() override;

 private:
  std::shared_ptr<MpiShared> shared_;
  MPI_Comm watch_comm_ = MPI_COMM_NULL;
  std::unique_ptr<MpiGroup> world_;
};

}  // namespace permafrost
