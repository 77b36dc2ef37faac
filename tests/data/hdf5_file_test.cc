// What Hdf5File says of files that other programs wrote.
#include "data/shards/hdf5_file.h"

#include <hdf5.h>

#include <array>

#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

/// Writes a file with the library itself, which can do what Hdf5File cannot.
class ForeignFile {
 public:
  explicit ForeignFile(const std::filesystem::path& path)
      : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~ForeignFile() { H5Fclose(file_); }
  ForeignFile(const ForeignFile&) = delete;
  ForeignFile& operator=(const ForeignFile&) = delete;

  /// Six bytes, as they are or in chunks.
  void add_bytes(const char* name, std::vector<hsize_t> shape, hid_t stored, bool chunked = false) const {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked) H5Pset_chunk(properties, static_cast<int>(shape.size()), shape.data());
    const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t dataset = H5Dcreate2(file_, name, stored, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    const std::array<uint8_t, 6> values{1, 2, 3, 4, 5, 6};
    EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(properties);
  }
  /// An attribute of `count` zero elements.
  void add_attribute(const char* name, hid_t type, hsize_t count) const {
    const hid_t space = H5Screate_simple(1, &count, nullptr);
    const hid_t attribute = H5Acreate2(file_, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const std::vector<char> zeros(H5Tget_size(type) * count);
    EXPECT_GE(H5Awrite(attribute, type, zeros.data()), 0) << name;
    H5Aclose(attribute);
    H5Sclose(space);
  }

 private:
  hid_t file_;
};

class ForeignHdf5 : public ::testing::Test {
 protected:
  ForeignHdf5() : path_(folder_.path() / "foreign.h5") {
    const ForeignFile file(path_);
    file.add_bytes("bytes", {6}, H5T_STD_U8LE);
    file.add_bytes("wide", {6}, H5T_STD_U16LE);
    file.add_bytes("flat", {2, 3}, H5T_STD_U8LE);
    file.add_bytes("chunked", {6}, H5T_STD_U8LE, /*chunked=*/true);
    file.add_attribute("number", H5T_NATIVE_INT64, 1);
    file.add_attribute("numbers", H5T_NATIVE_INT64, 2);
    const hid_t text = H5Tcopy(H5T_C_S1);
    file.add_attribute("letter", text, 1);
    H5Tset_size(text, H5T_VARIABLE);
    file.add_attribute("variable", text, 1);
    H5Tclose(text);
  }
  template <typename Call>
  ::testing::AssertionResult refused(const Call& call, std::string message, const std::string& name) const {
    return throws_error([&] { call(Hdf5File::open(path_)); }, ErrorKind::kData,
                        {message, "[file=" + path_.string() + ", name=" + name + "]"});
  }

  const DataFolder folder_;
  const std::filesystem::path path_;
};

TEST_F(ForeignHdf5, WhatIsAsItShouldBeIsRead) {
  const Hdf5File file = Hdf5File::open(path_);
  EXPECT_EQ(file.read<uint8_t>("bytes"), (std::vector<uint8_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_GT(file.offset_of("bytes"), 0);
  EXPECT_EQ(file.read<uint8_t>("chunked"), (std::vector<uint8_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(file.number_attribute("number"), 0);
  EXPECT_EQ(file.text_attribute("letter"), "");
}

TEST_F(ForeignHdf5, RefusesOtherTypesShapesAndLayouts) {
  const std::string type = "numbers of the type of this layout are expected; got others";
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.read<uint8_t>("wide"); }, type, "wide"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.read<char>("wide"); }, type, "wide"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.read<uint64_t>("bytes"); }, type, "bytes"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.read<uint8_t>("flat"); },
                      "a dataset of one dimension is expected; got 2", "flat"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.offset_of("chunked"); },
                      "bytes that lie one behind the other in the file are expected; got another layout", "chunked"));
}

TEST_F(ForeignHdf5, RefusesOtherAttributes) {
  const std::string text = "a text of fixed length is expected; got something else";
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.text_attribute("number"); }, text, "number"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.text_attribute("variable"); }, text, "variable"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.number_attribute("numbers"); }, "one number is expected; got 2",
                      "numbers"));
  EXPECT_TRUE(refused([](const Hdf5File& file) { file.number_attribute("letter"); },
                      "an attribute that can be read is expected", "letter"));
  EXPECT_TRUE(
      refused([](const Hdf5File& file) { file.number_attribute("none"); }, "the attribute is expected", "none"));
}

}  // namespace
}  // namespace permafrost::testing
