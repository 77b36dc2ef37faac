#include "core/weights/npz_archive.h"

#include "core/weights/source.h"
#include "tests/weights/scratch.h"
#include "tests/weights/zip_bytes.h"

namespace permafrost::testing {
namespace {

std::string numpy_file(const std::string& name) { return golden_path("weight_files/" + name); }

std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string out = "\x93NUMPY";
  out += version;
  out += '\0';
  put(out, header.size(), version == 1 ? 2 : 4);
  return out + header + data;
}

TEST(NpzArchive, ReadsWhatNumpyWrites) {
  const SafetensorsReader expected(numpy_file("expected.safetensors"));
  for (const char* name : {"plain.npz", "compressed.npz"}) {
    const auto file = open_tensor_file(numpy_file(name));
    size_t wanted = 0;
    for (const StoredTensor& tensor : expected.tensors()) {
      if (!tensor.name.starts_with("numpy/")) continue;
      ++wanted;
      const StoredTensor& found = file->at(tensor.name.substr(6));
      SCOPED_TRACE(name + found.name);
      EXPECT_EQ(found.shape, tensor.shape);
      EXPECT_EQ(found.dtype_name, tensor.dtype_name);
      const std::vector<std::byte> bytes = expected.read_all(tensor.name);
      EXPECT_EQ(file->read_all(found.name), bytes);
      std::vector<std::byte> pieces(bytes.size());
      for (size_t end = bytes.size(); end > 0;) {  // from the back
        const size_t begin = end > 1000 ? end - 1000 : 0;
        file->read(found, static_cast<int64_t>(begin), std::span(pieces).subspan(begin, end - begin));
        end = begin;
      }
      EXPECT_EQ(pieces, bytes);
    }
    EXPECT_EQ(file->tensors().size(), wanted);
  }
}

TEST(NpzArchive, ReadsEveryVersionOfTheHeader) {
  const ScratchFolder folder;
  const SafetensorsReader expected(numpy_file("expected.safetensors"));
  for (const char* version : {"version2.npy", "version3.npy"}) {
    write_text(folder / "x.npz", zip_bytes({{.name = "a.npy", .data = read_text(numpy_file(version))}}));
    EXPECT_EQ(open_tensor_file(folder / "x.npz")->read_all("a"), expected.read_all("numpy/float32")) << version;
  }
}

TEST(NpzArchive, ParsesHeadersStrictly) {
  NpyHeader header;
  EXPECT_TRUE(parse_npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n", header));
  EXPECT_EQ(header.extents, (std::vector<int64_t>{3, 4}));
  header = {};
  EXPECT_TRUE(parse_npy_header("{'shape':(),'fortran_order':True,'descr':'<f2'}", header));
  EXPECT_TRUE(header.fortran_order);
  for (const char* text :
       {"", "{", "{}", "{'descr': '<f4', 'fortran_order': False}", "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}"}) {
    header = {};
    EXPECT_FALSE(parse_npy_header(text, header)) << text;
  }
}

class NpzArchiveMade : public ::testing::Test {
 protected:
  ::testing::AssertionResult refused(const std::string& member, std::vector<std::string> parts, bool deflate = false) {
    write_text(path_, zip_bytes({{.name = "a.npy", .data = member, .deflate = deflate}}));
    parts.insert(parts.end(), {path_, "array 'a.npy'"});
    return throws_error([&] { open_tensor_file(path_); }, ErrorKind::kWeights, parts);
  }
  ScratchFolder folder_;
  std::string path_ = folder_ / "made.npz";
};

TEST_F(NpzArchiveMade, RefusesOtherArrays) {
  const auto header = [](const char* descr) {
    return concat("{'descr': '", descr, "', 'fortran_order': False, 'shape': (2,), }");
  };
  EXPECT_TRUE(refused(npy(header(">f4"), std::string(8, 'x')), {"little-endian", "'>f4'"}));
  EXPECT_TRUE(refused(npy(header("|O"), std::string(8, 'x')), {"'|O' (Python objects, which are pickles)"}));
  EXPECT_TRUE(refused(npy(header("|V2"), std::string(4, 'x')), {"'|V2'"}));
  EXPECT_TRUE(refused(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }", "xxxx"),
                      {"at most 6 axes; got 7"}));
  EXPECT_TRUE(refused(npy("what", "xxxx"), {"a header of descr, fortran_order and shape; got 'what'"}));
  EXPECT_TRUE(refused(npy(header("<f4"), "", 4), {"version 1 to 3"}));
  EXPECT_TRUE(refused("just text that is long", {"version 1 to 3"}));
  EXPECT_TRUE(refused("short", {"a whole header; got 5 bytes"}));
  std::string cut = npy(header("<f4"), "");
  EXPECT_TRUE(refused(cut.substr(0, 20), {"a whole header; got 20 bytes"}));
  EXPECT_TRUE(refused(npy(std::string(70'000, ' '), "", 2), {"a header of at most 65536 bytes"}));
  for (const char* name : {"objects.npz", "big_endian.npz"})
    EXPECT_TRUE(throws_error([&] { open_tensor_file(numpy_file(std::string("refused/") + name)); }, ErrorKind::kWeights,
                             {name, "array 'a.npy'"}));
}

TEST_F(NpzArchiveMade, RefusesNamesThatCannotBePrintedOrWritten) {
  const std::string data = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "1234");
  for (const auto& [name, shown] : {std::pair("a\xff", "'a\\xff'"), std::pair("\x1b[2J", "'\\x1b[2J'"),
                                    std::pair("__metadata__", "got '__metadata__'"), std::pair("", "got ''")}) {
    write_text(path_, zip_bytes({{.name = std::string(name) + ".npy", .data = data}}));
    EXPECT_TRUE(throws_error([&] { open_tensor_file(path_); }, ErrorKind::kWeights,
                             {path_, "expected tensor names of UTF-8 text", shown}));
  }
}

TEST_F(NpzArchiveMade, RefusesSizesThatContradictTheHeader) {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  EXPECT_TRUE(refused(npy(header, std::string(23, 'x')), {"(2, 3) F32 as its header says; got 23 bytes of data"}));
  EXPECT_TRUE(refused(npy(header, std::string(25, 'x')), {"got 25 bytes"}));
  EXPECT_TRUE(refused(npy(header, std::string(10'000'000, '\0')), {"got 10000000 bytes"}, true));  // packed into 10 KB
  EXPECT_TRUE(refused(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9), }", "xxxx"),
                      {"as its header says; got 4 bytes"}));
}

TEST_F(NpzArchiveMade, EmptyArraysMayHaveAnyExtents) {
  for (const char* order : {"True", "False"})
    for (const char* shape :
         {"(0, 4611686018427387904, 4611686018427387904)", "(4611686018427387904, 4611686018427387904, 0)"}) {
      const std::string header = concat("{'descr': '<f4', 'fortran_order': ", order, ", 'shape': ", shape, ", }");
      write_text(path_, zip_bytes({{.name = "a.npy", .data = npy(header, "")}}));
      EXPECT_TRUE(open_tensor_file(path_)->read_all("a").empty());
    }
}

TEST_F(NpzArchiveMade, FindsDamage) {
  for (const char* order : {"False", "True"})
    for (const bool deflate : {false, true}) {
      SCOPED_TRACE(concat("Fortran order ", order, deflate ? ", deflated" : ""));
      const std::string data =
          npy(concat("{'descr': '<f4', 'fortran_order': ", order, ", 'shape': (2, 3), }"), "123456789012345678901234");
      write_text(path_, zip_bytes({{.name = "a.npy", .data = data, .deflate = deflate, .crc_change = 1},
                                   {.name = "b.npy", .data = data, .deflate = deflate}}));
      const auto file = open_tensor_file(path_);
      EXPECT_TRUE(
          throws_error([&] { file->read_all("a"); }, ErrorKind::kWeights, {path_, "expected crc32", "'a.npy'"}));
      file->read_all("b");
    }
}

}  // namespace
}  // namespace permafrost::testing
