#include <gtest/gtest.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string_view>

#include "core/device/cuda.h"
#include "tests/support/compare.h"

/// PERMAFROST_TEST_DEVICE=cuda runs every test of the program with its tensors and programs on the first GPU; the exit
/// code is 77 where there is none.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* device = std::getenv("PERMAFROST_TEST_DEVICE");
  if (device && std::string_view(device) == "cuda") {
    if (permafrost::cuda::device_count() == 0) {
      std::cout << "skipped: " << permafrost::cuda::why_unavailable() << std::endl;
      return 77;
    }
    permafrost::testing::use_device(permafrost::Device::cuda(0));
  }
  const int result = RUN_ALL_TESTS();
  try {
    permafrost::testing::use_device(permafrost::Device::cpu());
  } catch (const std::exception& error) {  // of the last test's kernels
    std::cout << error.what() << std::endl;
    return 1;
  }
  return result;
}
