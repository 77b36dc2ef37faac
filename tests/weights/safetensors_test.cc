#include "core/weights/safetensors.h"

#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::vector<NamedTensor> sample_tensors() {
  return {{"wide", make_tensor(DType::kF64, {2}, {1.5, -2})},
          {"a.weight", make_tensor(DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6})},
          {"empty", make_tensor(DType::kF32, {0, 4}, {})},
          {"scalar", make_tensor(DType::kI64, {}, {-7})},
          {"half", make_tensor(DType::kF16, {3}, {0.5, 1, -65504})},
          {"brain", make_tensor(DType::kBF16, {1}, {3})},
          {"ids", make_tensor(DType::kI32, {2}, {1, -2})},
          {"pixels", make_tensor(DType::kU8, {3}, {0, 128, 255})}};
}

TEST(Safetensors, RoundTripsEveryDType) {
  const ScratchFolder folder;
  const auto tensors = sample_tensors();
  write_tensors(folder / "x.safetensors", tensors, {{"format", "pt"}, {"note", "h\xC3\xA9llo \"quoted\""}});
  const SafetensorsReader reader(folder / "x.safetensors");
  ASSERT_EQ(reader.tensors().size(), tensors.size());
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  EXPECT_EQ(reader.metadata().at("note"), "h\xC3\xA9llo \"quoted\"");
  for (const NamedTensor& t : tensors) {
    const OwnedTensor out = filled_tensor(t.tensor.view().dtype(), t.tensor.view().shape(), 0x5A);
    reader.read_tensor(t.name, out);
    EXPECT_TRUE(same_bits(out, t.tensor)) << t.name;
    EXPECT_TRUE(out.canaries_intact()) << t.name;
    EXPECT_EQ(static_cast<int64_t>(reader.read_all(t.name).size()), t.tensor.view().bytes());
  }
  EXPECT_EQ(reader.find("absent"), nullptr);
  EXPECT_EQ(reader.file_bytes(), static_cast<int64_t>(std::filesystem::file_size(folder / "x.safetensors")));
}

TEST(Safetensors, BytesAreDeterministicAndPadded) {
  const ScratchFolder folder;
  write_tensors(folder / "x", {{"b", make_tensor(DType::kU8, {1}, {7})}, {"a", make_tensor(DType::kU8, {2}, {8, 9})}},
                {{"z", "1"}, {"k", "2"}});
  // Declaration order is kept, metadata is sorted, the header is filled up with spaces to a multiple of 8.
  std::string header = R"({"__metadata__":{"k":"2","z":"1"},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(read_text(folder / "x"), raw_file(header, "\x07\x08\x09"));
  const std::vector<TensorDeclaration> declared{{"b", {{1}, DType::kU8}}, {"a", {{2}, DType::kU8}}};
  EXPECT_EQ(safetensors_file_bytes(declared, {{"z", "1"}, {"k", "2"}}), static_cast<int64_t>(8 + header.size() + 3));
}

TEST(Safetensors, ReadsSlices) {
  const ScratchFolder folder;
  write_tensors(folder / "x",
                {{"a", make_tensor(DType::kU8, {4}, {1, 2, 3, 4})}, {"b", make_tensor(DType::kU8, {2}, {5, 6})}});
  const SafetensorsReader reader(folder / "x");
  std::array<std::byte, 2> out{};
  reader.read("a", 1, out);
  EXPECT_EQ(out[0], std::byte{2});
  EXPECT_EQ(out[1], std::byte{3});
  EXPECT_TRUE(
      throws_error([&] { reader.read("a", 3, out); }, ErrorKind::kInvalidArgument, {"within the 4 bytes of 'a'"}));
  EXPECT_TRUE(throws_error([&] { reader.read("a", -1, out); }, ErrorKind::kInvalidArgument, {"from -1"}));
  EXPECT_TRUE(throws_error([&] { reader.read_all("c"); }, ErrorKind::kWeights, {folder / "x", "'c'", "none among 2"}));
  const OwnedTensor wrong_shape = filled_tensor(DType::kU8, {2, 2}, 0),
                    wrong_dtype = filled_tensor(DType::kI32, {1}, 0);
  EXPECT_TRUE(throws_error([&] { reader.read_tensor("a", wrong_shape); }, ErrorKind::kWeights,
                           {"'a' as (2, 2) u8", "got (4) U8"}));
  EXPECT_TRUE(throws_error([&] { reader.read_tensor("a", wrong_dtype); }, ErrorKind::kWeights,
                           {"'a' as (1) i32", "got (4) U8"}));
}

TEST(Safetensors, ListsDTypesItCannotCompute) {
  const ScratchFolder folder;
  write_text(folder / "x", raw_file(R"({"q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},)"
                                    R"("p":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}})",
                                    "abcd"));
  const SafetensorsReader reader(folder / "x");
  EXPECT_EQ(reader.at("q").dtype_name, "F8_E4M3");
  EXPECT_FALSE(reader.at("q").dtype.has_value());
  EXPECT_EQ(reader.read_all("p"), (std::vector<std::byte>{std::byte{'c'}, std::byte{'d'}}));
  const OwnedTensor out = filled_tensor(DType::kU8, {2}, 0);
  EXPECT_TRUE(throws_error([&] { reader.read_tensor("q", out); }, ErrorKind::kWeights, {"got (2) F8_E4M3"}));
}

TEST(Safetensors, EmptyTensorsMayHaveAnyExtents) {
  const ScratchFolder folder;
  write_text(folder / "w", raw_file(R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]},
      "b":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}})",
                                    ""));
  const SafetensorsReader reader(folder / "w");
  for (const char* name : {"a", "b"}) EXPECT_TRUE(reader.read_all(name).empty());
}

using namespace std::string_view_literals;

/// Plain data: a table of strings to be built would keep the compiler busy for a minute under the sanitizers.
struct BadFile {
  const char* name;
  std::string_view bytes;
  const char* parts[2];
};

constexpr BadFile kBadStarts[] = {
    {"empty file", ""sv, {"at least 10 bytes; got 0 bytes"}},
    {"shorter than a length", "abc"sv, {"at least 10 bytes; got 3 bytes"}},
    {"absurd length", "\0\0\0\0\0\0\0\x10{}      "sv, {"got 1152921504606846976", "16 bytes"}},
    {"length of all ones", "\xff\xff\xff\xff\xff\xff\xff\xff{}"sv, {"header length", "18446744073709551615"}},
    {"length beyond the file", "\x0b\0\0\0\0\0\0\0{}        "sv, {"header length", "got 11 in a file of 18 bytes"}},
    {"length over the limit", "\x01\xe1\xf5\x05\0\0\0\0{}"sv, {"2 to 100000000", "got 100000001"}},
    {"zip", "PK\x03\x04\0\0\0\0\0\0\0\0\0\0"sv, {"expected a safetensors file", "zip archive (what torch.save"}},
    {"pickle", "\x80\x02}q\x01\x01\x01\x01\x01\x01\x01"sv, {"expected a safetensors file", "Python pickle"}},
    {"numpy", "\x93NUMPY\x01\x01\x01\x01\x01\x01"sv, {"numpy"}},
    {"git lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"sv, {"Git LFS pointer"}},
    {"index", "{\"weight_map\": {\"a\": \"b\"}}"sv, {"index of a sharded model"}},
    {"html", "<!DOCTYPE html><html></html>"sv, {"HTML page"}},
    {"no brace", "\x02\0\0\0\0\0\0\0[]"sv, {"must begin with '{'"}},
};

/// Headers of files with four bytes of data.
constexpr BadFile kBadHeaders[] = {
    {"not JSON", R"({"t":})", {"header must be JSON"}},
    {"not UTF-8", "{\"\xFF\":1}", {"header must be JSON"}},
    {"text behind", "{}{}", {"header must be JSON"}},
    {"key twice",
     R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
     {"'a' twice"}},
    {"inner key twice", R"({"t":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}})", {"'dtype' twice"}},
    {"metadata not an object", R"({"__metadata__":[]})", {"__metadata__", "array"}},
    {"metadata not strings", R"({"__metadata__":{"a":1}})", {"__metadata__", "'a'"}},
    {"entry not an object", R"({"t":3})", {"'t' must be described by an object"}},
    {"unknown field", R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"stride":[1]}})", {"'t'", "'stride'"}},
    {"unknown dtype", R"({"t":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", {"'t'", "'F31'"}},
    {"no dtype", R"({"t":{"shape":[1],"data_offsets":[0,4]}})", {"'t'", "dtype must be a string"}},
    {"no shape", R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", {"'t'", "shape must be a list"}},
    {"no offsets", R"({"t":{"dtype":"F32","shape":[1]}})", {"'t'", "data_offsets must be a list"}},
    {"negative extent", R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", {"'t': shape", "got -1"}},
    {"extent not an integer", R"({"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", {"'t': shape", "got 1.0"}},
    {"extent over 2^63",
     R"({"t":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})",
     {"'t': shape", "2^63-1"}},
    {"size overflows",
     R"({"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})",
     {"'t'", "overflows"}},
    {"seven axes",
     R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
     {"'t'", "at most 6 axes; got 7"}},
    {"misshapen",
     R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
     {"'t': (2) F32 takes 8 bytes", "4 bytes"}},
    {"half a byte", R"({"t":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}})", {"'t'", "whole bytes; got 28 bits"}},
    {"range backwards", R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", {"'t'", "[4,0]"}},
    {"range of three", R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", {"'t'", "[0,4,8]"}},
    {"truncated",
     R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
     {"within the file's 4 bytes", "got [0,8]"}},
    {"bytes left over", R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", {"end at byte", "got a file of"}},
    {"gap", R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})", {"'t'", "(gap)"}},
    {"overlap",
     R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
     {"'b'", "(overlap)"}},
};

void expect_refused(const BadFile& bad, std::string_view bytes) {
  const ScratchFolder folder;
  const std::string path = folder / "bad.safetensors";
  write_text(path, bytes);
  EXPECT_TRUE(throws_error([&] { SafetensorsReader reader(path); }, ErrorKind::kWeights,
                           {path, bad.parts[0], bad.parts[1] ? bad.parts[1] : ""}))
      << bad.name;
}

TEST(Safetensors, RefusesBadFiles) {
  for (const BadFile& bad : kBadStarts) expect_refused(bad, bad.bytes);
  for (const BadFile& bad : kBadHeaders) expect_refused(bad, raw_file(std::string(bad.bytes), "abcd"));
}

TEST(Safetensors, RefusesWhatIsNoFile) {
  const ScratchFolder folder;
  EXPECT_TRUE(throws_error([&] { SafetensorsReader reader(folder / "none"); }, ErrorKind::kWeights,
                           {folder / "none", "No such file"}));
  EXPECT_TRUE(throws_error([&] { SafetensorsReader reader(folder.path()); }, ErrorKind::kWeights,
                           {folder.path(), "a folder?"}));
}

TEST(Safetensors, NoticesThatTheFileShrank) {
  const ScratchFolder folder;
  write_tensors(folder / "x", {{"a", make_tensor(DType::kF32, {4}, {1, 2, 3, 4})}});
  const SafetensorsReader reader(folder / "x");
  std::filesystem::resize_file(folder / "x", std::filesystem::file_size(folder / "x") - 4);
  EXPECT_TRUE(throws_error([&] { reader.read_all("a"); }, ErrorKind::kStorage, {folder / "x", "became shorter"}));
}

TEST(Safetensors, DeepNestingIsRefusedWithoutOverflow) {
  const ScratchFolder folder;
  std::string header = "{\"a\":";
  header.append(1'000'000, '[');
  write_text(folder / "x", raw_file(header, ""));
  EXPECT_TRUE(
      throws_error([&] { SafetensorsReader reader(folder / "x"); }, ErrorKind::kWeights, {"header must be JSON"}));
  header.append(1'000'000, ']').append("}");
  write_text(folder / "x", raw_file(header, ""));
  EXPECT_TRUE(throws_error([&] { SafetensorsReader reader(folder / "x"); }, ErrorKind::kWeights,
                           {"'a' must be described by an object"}));
}

TEST(Safetensors, MutatedHeadersParseOrAreRefused) {
  const ScratchFolder folder;
  write_tensors(folder / "good", sample_tensors(), {{"k", "v"}});
  const std::string good = read_text(folder / "good");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, good.data(), 8);
  const uint64_t reach = 8 + header_bytes;
  Random random(7, RandomPurpose::kSynthetic);
  int parsed = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (uint64_t edit = 1 + random.next_below(3); edit > 0; --edit) {
      const uint64_t at = random.next_below(std::min<uint64_t>(reach, bytes.size()));
      switch (random.next_below(5)) {
        case 0:
          bytes[at] = static_cast<char>(random.next_below(256));
          break;
        case 1:
          bytes[at] = "{}[]\",:0123456789-.eE"[random.next_below(21)];
          break;
        case 2:
          bytes.erase(at, 1 + random.next_below(8));
          break;
        case 3:
          bytes.insert(at, bytes.substr(random.next_below(bytes.size()), random.next_below(16)));
          break;
        default:
          bytes.resize(std::max<uint64_t>(random.next_below(bytes.size()), 1));
          break;
      }
    }
    write_text(folder / "bad", bytes);
    try {
      const SafetensorsReader reader(folder / "bad");
      for (const StoredTensor& tensor : reader.tensors()) reader.read_all(tensor.name);
      ++parsed;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::kWeights) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(parsed, 10);
  EXPECT_GT(refused, 1000);
}

TEST(SafetensorsWriter, InsistsOnWhatWasDeclared) {
  const ScratchFolder folder;
  const std::string path = folder / "x";
  const std::vector<TensorDeclaration> declared{{"a", {{2}, DType::kU8}}, {"b", {{1}, DType::kU8}}};
  const OwnedTensor a = make_tensor(DType::kU8, {2}, {1, 2}), b = make_tensor(DType::kU8, {1}, {3});
  EXPECT_TRUE(throws_error(
      [&] {
        SafetensorsWriter(path, {declared[0], declared[0]});
      },
      ErrorKind::kInvalidArgument, {"'a' twice"}));
  EXPECT_TRUE(throws_error(
      [&] {
        SafetensorsWriter(path, {{"__metadata__", {{1}, DType::kU8}}});
      },
      ErrorKind::kInvalidArgument, {"__metadata__"}));
  EXPECT_TRUE(throws_error(
      [&] {
        SafetensorsWriter(path, {{"\xFF", {{1}, DType::kU8}}});
      },
      ErrorKind::kInvalidArgument, {"UTF-8"}));
  {
    SafetensorsWriter writer(path, declared);
    EXPECT_TRUE(throws_error([&] { writer.write_tensor("b", b); }, ErrorKind::kInvalidArgument,
                             {"expected 'a' (2) u8; got 'b' (1) u8"}));
    writer.write_tensor("a", a);
    EXPECT_TRUE(throws_error([&] { writer.write_tensor("b", a); }, ErrorKind::kInvalidArgument,
                             {"expected 'b' (1) u8; got 'b' (2) u8"}));
    EXPECT_TRUE(throws_error([&] { writer.finish(); }, ErrorKind::kInvalidArgument, {"takes 3 bytes of data; got 2"}));
    EXPECT_TRUE(throws_error([&] { writer.write(std::as_bytes(std::span("four"))); }, ErrorKind::kInvalidArgument,
                             {"takes 3 bytes"}));
  }
  EXPECT_EQ(folder.files(), 0u);
}

TEST(Safetensors, ReadsTheGoldenFiles) {
  const SafetensorsReader reader(golden_path("adamw.safetensors"));
  EXPECT_FALSE(reader.tensors().empty());
  EXPECT_NE(reader.metadata().find("cases"), reader.metadata().end());
  for (const StoredTensor& tensor : reader.tensors())
    EXPECT_EQ(static_cast<int64_t>(reader.read_all(tensor.name).size()), tensor.bytes);
}

}  // namespace
}  // namespace permafrost::testing
