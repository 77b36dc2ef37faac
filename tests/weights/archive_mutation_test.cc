// Archives with bytes changed at random: opening and reading them gives tensors or a refusal, nothing else.
#include <random>

#include "core/weights/source.h"
#include "tests/weights/pickle_writer.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

struct Counts {
  int read = 0, refused = 0;
};

void open_and_read(const std::string& path, Counts& counts) {
  try {
    const auto file = open_tensor_file(path);
    std::vector<std::byte> piece(size_t{1} << 12);
    for (const StoredTensor& tensor : file->tensors())
      for (int64_t at = 0; at < tensor.bytes; at += 1 << 12)
        file->read(tensor, at,
                   std::span(piece).first(static_cast<size_t>(std::min<int64_t>(1 << 12, tensor.bytes - at))));
    ++counts.read;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kWeights) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    ++counts.refused;
  }
}

/// One to four changes: a byte, a flipped bit, a piece left out, doubled or filled.
std::string changed(std::string bytes, std::mt19937_64& random, size_t from, size_t to) {
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (size_t n = 1 + below(4); n > 0; --n) {
    const size_t end = std::min(to, bytes.size()), at = from + below(std::max<size_t>(end - from, 1));
    if (at >= bytes.size()) break;
    const size_t length = std::min<size_t>(1 + below(16), bytes.size() - at);
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, length));
        break;
      case 4:
        for (size_t i = 0; i < length; ++i) bytes[at + i] = static_cast<char>(below(2) ? 0xff : 0);
        break;
      default:
        bytes[at] = static_cast<char>(bytes[at] + (below(2) ? 1 : -1));
    }
  }
  return bytes;
}

TEST(ArchiveMutations, NeverCrashOrHang) {
  const ScratchFolder folder;
  Counts counts;
  std::mt19937_64 random(7);
  for (const char* name : {"dtypes.pth", "protocol4.pth", "views.pt", "checkpoint.pth", "parameters.bin", "float8.pt",
                           "plain.npz", "compressed.npz"}) {
    const std::string bytes = read_text(golden_path(std::string("weight_files/") + name)), path = folder / name;
    const size_t directory = bytes.rfind("PK\x05\x06");
    for (int i = 0; i < 150; ++i) {
      // Half of them near the end, where the directory is.
      const size_t from = i % 2 ? 0 : directory - std::min<size_t>(directory, 800);
      write_text(path, changed(bytes, random, from, bytes.size()));
      open_and_read(path, counts);
    }
  }
  EXPECT_GT(counts.read, 20);
  EXPECT_GT(counts.refused, 200);
}

/// The pickle alone, so that the archive around it is always sound.
TEST(ArchiveMutations, OfThePickleNeverCrashOrHang) {
  const ScratchFolder folder;
  Counts counts;
  std::mt19937_64 random(11);
  const std::string tensor = p_tensor(p_storage("FloatStorage", "0", 64), 3, {4, 5}, {1, 4});
  const std::string pickle = p_file(
      p_dict({p_text("model"), p_dict({p_text("a"), tensor, p_text("b"), tensor + "q\x05", p_text("c"), "h\x05"}),
              p_text("epoch"), p_int(7), p_text("list"),
              "](K\x01K\x02"
              "e",
              p_text("o"), p_call(p_global("collections", "OrderedDict"), ")")}));
  for (int i = 0; i < 1500; ++i) {
    write_text(folder / "x.pth", zip_bytes({{.name = "x/data.pkl", .data = changed(pickle, random, 0, pickle.size())},
                                            {.name = "x/data/0", .data = std::string(256, 'v')}}));
    open_and_read(folder / "x.pth", counts);
  }
  EXPECT_GT(counts.read, 10);
  EXPECT_GT(counts.refused, 500);
}

TEST(ArchiveMutations, CutShortAnywhereAreRefused) {
  const ScratchFolder folder;
  for (const char* name : {"protocol4.pth", "compressed.npz"}) {
    const std::string bytes = read_text(golden_path(std::string("weight_files/") + name));
    for (size_t length = 0; length < bytes.size(); length += length < 40 || length + 200 > bytes.size() ? 1 : 37) {
      write_text(folder / name, bytes.substr(0, length));
      EXPECT_TRUE(throws_error([&] { open_tensor_file(folder / name); }, ErrorKind::kWeights, {folder / name}))
          << length;
    }
  }
}

}  // namespace
}  // namespace permafrost::testing
