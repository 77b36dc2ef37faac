// What tells weight files apart without reading them, for every kind of file.
#include "launch/training/weight_files.h"

#include <filesystem>

#include "core/weights/safetensors.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

config::Config with_vision(const std::string& path) {
  config::Config config;
  config.mutable_weights()->set_vision(path);
  return config;
}

/// The goldens under `prefix` as a safetensors file.
std::string as_safetensors(const ScratchFolder& folder, const std::string& prefix) {
  const SafetensorsReader golden(testing::golden_path("weight_files/expected.safetensors"));
  std::vector<const StoredTensor*> chosen;
  std::vector<TensorDeclaration> declarations;
  for (const StoredTensor& tensor : golden.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    chosen.push_back(&tensor);
    declarations.push_back({tensor.name.substr(prefix.size()), {tensor.shape, *tensor.dtype}});
  }
  SafetensorsWriter writer((folder / "w.safetensors").string(), declarations);
  for (const StoredTensor* tensor : chosen) writer.write(golden.read_all(tensor->name));
  writer.finish();
  return (folder / "w.safetensors").string();
}

TEST(WeightFiles, EndsAreThoseOfTheTensorsWhateverTheFile) {
  for (const char* name : {"views.pt", "opt.bin"}) {
    const ScratchFolder folder;
    const auto ends = ends_of_tensors(with_vision(testing::golden_path(concat("weight_files/", name))));
    EXPECT_GE(ends.size(), 8u);
    EXPECT_EQ(ends, ends_of_tensors(with_vision(as_safetensors(folder, concat(name, "/")))));
  }
  const auto plain = ends_of_tensors(with_vision(testing::golden_path("weight_files/plain.npz")));
  EXPECT_EQ(plain, ends_of_tensors(with_vision(testing::golden_path("weight_files/compressed.npz"))));
  EXPECT_TRUE(plain.contains("vision fortran"));
}

TEST(WeightFiles, IdentityChangesWithTheFile) {
  const ScratchFolder folder;
  const std::string golden = testing::golden_path("weight_files/opt.bin"), copy = (folder / "opt.bin").string();
  std::filesystem::copy_file(golden, copy);
  EXPECT_EQ(identity_of_files(with_vision(golden)), identity_of_files(with_vision(golden)));
  EXPECT_NE(identity_of_files(with_vision(golden)), identity_of_files(with_vision(copy)));
  const int64_t before = identity_of_files(with_vision(copy));
  std::filesystem::last_write_time(copy, std::filesystem::last_write_time(copy) + std::chrono::seconds(1));
  EXPECT_NE(identity_of_files(with_vision(copy)), before);
}

}  // namespace
}  // namespace permafrost
