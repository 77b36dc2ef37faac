#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace permafrost {

/// A value of a pickle. Containers may be shared and may even contain themselves.
struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,     ///< integer
    kInt,      ///< integer; those beyond 64 bits are kOther
    kFloat,    ///< real
    kString,   ///< text
    kBytes,    ///< text
    kTuple,    ///< items
    kList,     ///< items
    kDict,     ///< items: keys and values in turn; OrderedDict and Counter too
    kGlobal,   ///< text: "torch FloatStorage"
    kStorage,  ///< items: storage type, key, device, number of elements
    kTensor,   ///< items: storage, offset, size, stride, and the dtype where the storage does not say it
    kOther,    ///< harmless and of no use here; text says what
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<const PickleValue*> items;
};

/// What a pickle's last value is made of.
struct Pickle {
  std::deque<PickleValue> values;  ///< all of them; addresses stay
  const PickleValue* root = nullptr;
};

/// Reads a pickle (protocols 2 to 5) as torch.save writes them. Nothing in it is executed: it is read as a description
/// of values, and the few functions that tensors need (see kKnownGlobals in pickle_calls.cc) are understood, not
/// called. Any other global, any other use of the known ones, and any opcode that those do not need is refused. Limits:
/// kMaxPickleBytes of pickle, kMaxPickleValues values, kMaxPickleBytes made by calls: some 300 MiB of memory. `path`:
/// the file, for messages. Errors: kWeights naming what is refused: "global os.system", "opcode ...". Source: Python's
/// Lib/pickletools.py (opcodes), torch/_weights_only_unpickler.py (what torch itself holds for safe).
Pickle read_pickle(const std::string& path, std::string_view bytes);

inline constexpr int64_t kMaxPickleBytes = int64_t{64} << 20;
inline constexpr int64_t kMaxPickleValues = int64_t{1} << 21;

}  // namespace permafrost
