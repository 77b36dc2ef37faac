// Libraries that are opened when they are needed: where they are looked for, and what is said where they are not.
#include "core/device/cuda_library.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace permafrost::cuda {
namespace {

namespace fs = std::filesystem;

class CudaLibrary : public ::testing::Test {
 protected:
  CudaLibrary() : folder_(fs::temp_directory_path() / ("cuda_library_" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~CudaLibrary() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(CudaLibrary, WhatTheLoaderKnowsComesFirst) {
  const LibraryPlace place = open_library("libm.so.6", {folder_.string()});
  EXPECT_NE(place.handle, nullptr);
  EXPECT_TRUE(place.path.ends_with("/libm.so.6")) << place.path;
  EXPECT_EQ(place.reason, "");
}

TEST_F(CudaLibrary, IsFoundByAPatternOfFolders) {
  const LibraryPlace known = open_library("libm.so.6", {});
  fs::create_directories(folder_ / "python3.11" / "site-packages" / "nvidia" / "cu13" / "lib");
  const fs::path copy = folder_ / "python3.11/site-packages/nvidia/cu13/lib/libpermafrost_none.so.1";
  fs::copy_file(known.path, copy);
  const LibraryPlace place = open_library(
      "libpermafrost_none.so.1", {"/nowhere", folder_.string() + "/python3*/{site,dist}-packages/nvidia/*/lib"});
  EXPECT_NE(place.handle, nullptr) << place.reason;
  EXPECT_EQ(place.path, copy.string());
}

TEST_F(CudaLibrary, SaysWhereItLooked) {
  const LibraryPlace place = open_library("libpermafrost_none.so.2", {"/nowhere", folder_.string()});
  EXPECT_EQ(place.handle, nullptr);
  EXPECT_EQ(place.path, "");
  EXPECT_EQ(
      place.reason,
      "no libpermafrost_none.so.2 here; expected one that the system's loader knows (ldconfig, LD_LIBRARY_PATH) or in "
      "/nowhere, " +
          folder_.string() + ": install CUDA's libraries, version 13");
}

TEST_F(CudaLibrary, SaysWhatTheLoaderRefuses) {
  std::ofstream(folder_ / "libpermafrost_none.so.3") << "no library";
  const LibraryPlace place = open_library("libpermafrost_none.so.3", {folder_.string()});
  EXPECT_EQ(place.handle, nullptr);
  EXPECT_TRUE(place.reason.starts_with("the system's loader refuses libpermafrost_none.so.3: ")) << place.reason;
}

TEST_F(CudaLibrary, IsOpenedOnce) { EXPECT_EQ(&find_library("libm.so.6"), &find_library("libm.so.6")); }

}  // namespace
}  // namespace permafrost::cuda
