#include "core/weights/pickle_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "core/base/check.h"
#include "core/weights/pickle_calls.h"

namespace permafrost {

namespace {

using Kind = PickleValue::Kind;
using Items = std::vector<const PickleValue*>;

constexpr size_t kMaxStack = size_t{1} << 22;
constexpr size_t kShownName = 200;  // in messages

/// The stack machine that a pickle is a program for. Values on the stack are pointers; marks are nullptr.
class PickleMachine {
 public:
  PickleMachine(const std::string& path, std::string_view bytes) : path_(path), bytes_(bytes) {}

  Pickle run() {
    while (!done_) step();
    return std::move(pickle_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(const Args&... args) const {
    fail(ErrorKind::kWeights, path_, ": expected a pickle of tensors; got ", args...);
  }

  // --- bytes

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_)
      refuse("one cut short: ", count, " bytes wanted at byte ", at_, " of ", bytes_.size());
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  std::string line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) refuse("one cut short in a name at byte ", at_);
    std::string text(bytes_.substr(at_, end - at_));
    at_ = end + 1;
    return text;
  }

  // --- values

  PickleValue* make(Kind kind) {
    if (pickle_.values.size() >= static_cast<size_t>(kMaxPickleValues))
      refuse("more than ", kMaxPickleValues, " values");
    pickle_.values.emplace_back().kind = kind;
    return &pickle_.values.back();
  }
  void push(PickleValue* value) {
    if (stack_.size() >= kMaxStack) refuse("more than ", kMaxStack, " values on its stack");
    stack_.push_back(value);
  }
  void push_integer(Kind kind, int64_t integer) {
    PickleValue* value = make(kind);
    value->integer = integer;
    push(value);
  }
  void push_text(Kind kind, std::string_view text) {
    PickleValue* value = make(kind);
    value->text = text;
    push(value);
  }
  void push_items(Kind kind, Items items) {
    PickleValue* value = make(kind);
    value->items = std::move(items);
    push(value);
  }

  PickleValue* pop() {
    if (stack_.empty() || !stack_.back()) refuse("nothing to take from its stack at byte ", at_);
    PickleValue* value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Items pop_some(size_t count) {
    Items items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  Items pop_to_mark() {
    const auto mark = std::find(stack_.rbegin(), stack_.rend(), nullptr);
    if (mark == stack_.rend()) refuse("no mark on its stack at byte ", at_);
    Items items(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return items;
  }
  PickleValue* top(Kind kind, const char* what) {
    if (stack_.empty() || !stack_.back() || stack_.back()->kind != kind)
      refuse("no ", what, " where it needs one, at byte ", at_);
    return stack_.back();
  }

  void append(const Items& items) {
    PickleValue* list = top(Kind::kList, "list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void set_items(const Items& items) {
    if (items.size() % 2 != 0) refuse("a key without a value at byte ", at_);
    PickleValue* dict = top(Kind::kDict, "dict");
    dict->items.insert(dict->items.end(), items.begin(), items.end());
  }

  void memoize(uint64_t index) {
    if (stack_.empty() || !stack_.back()) refuse("nothing to remember at byte ", at_);
    if (index >= static_cast<uint64_t>(kMaxPickleValues))
      refuse("memo number ", index, ", more than ", kMaxPickleValues);
    memo_[static_cast<uint32_t>(index)] = stack_.back();
  }
  void recall(uint64_t index) {
    const auto found =
        index < static_cast<uint64_t>(kMaxPickleValues) ? memo_.find(static_cast<uint32_t>(index)) : memo_.end();
    if (found == memo_.end()) refuse("memo number ", index, ", which it never set");
    push(found->second);
  }

  void push_long(std::string_view bytes) {
    if (bytes.size() > 8) return push_text(Kind::kOther, "an integer beyond 64 bits");
    uint64_t value = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80u) != 0 ? ~uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push_integer(Kind::kInt, static_cast<int64_t>(value));
  }

  void push_float() {
    const std::string_view text = take(8);
    uint64_t bits = 0;
    for (const char c : text) bits = bits << 8 | static_cast<unsigned char>(c);
    PickleValue* value = make(Kind::kFloat);
    value->real = std::bit_cast<double>(bits);
    push(value);
  }

  void push_global(const std::string& module, const std::string& name) {
    if (!is_known_global(module + " " + name))
      refuse("global ", (module + "." + name).substr(0, kShownName),
             ", which tensors do not need (nothing was executed)");
    push_text(Kind::kGlobal, module + " " + name);
  }

  void call() {
    const PickleValue* arguments = pop();
    const PickleValue* function = pop();
    if (function->kind != Kind::kGlobal || arguments->kind != Kind::kTuple)
      refuse("a call of something that is no known function, at byte ", at_);
    PickleValue* result = make(Kind::kNone);
    const std::string wrong = understand_call(function->text, arguments->items, *result);
    if (!wrong.empty()) refuse(wrong);
    // Calls copy what they are given, and can be given the same again and again.
    made_bytes_ += static_cast<int64_t>(result->text.size() + result->items.size() * sizeof(PickleValue*));
    if (made_bytes_ > kMaxPickleBytes) refuse("more than ", kMaxPickleBytes, " bytes made by calls");
    push(result);
  }

  /// Attributes of an OrderedDict (torch's _metadata) and the state of a numpy dtype; neither is of use.
  void build() {
    pop();
    if (stack_.empty() || !stack_.back() || (stack_.back()->kind != Kind::kDict && stack_.back()->kind != Kind::kOther))
      refuse("attributes for something that takes none, at byte ", at_);
  }

  void persistent() {
    const PickleValue* id = pop();
    PickleValue* storage = make(Kind::kStorage);
    const std::string wrong = understand_storage(*id, *storage);
    if (!wrong.empty()) refuse(wrong);
    push(storage);
  }

  void step();
  bool step_container(unsigned char opcode);
  bool step_text(unsigned char opcode);
  bool step_number(unsigned char opcode);
  bool step_memo(unsigned char opcode);

  const std::string& path_;
  std::string_view bytes_;
  size_t at_ = 0;
  bool done_ = false;
  int64_t made_bytes_ = 0;
  Pickle pickle_;
  std::vector<PickleValue*> stack_;
  std::unordered_map<uint32_t, PickleValue*> memo_;
};

bool PickleMachine::step_container(unsigned char opcode) {
  switch (opcode) {
    case '(':
      if (stack_.size() >= kMaxStack) refuse("more than ", kMaxStack, " values on its stack");
      return stack_.push_back(nullptr), true;
    case '}':
      return push_items(Kind::kDict, {}), true;
    case ']':
      return push_items(Kind::kList, {}), true;
    case ')':
      return push_items(Kind::kTuple, {}), true;
    case 't':
      return push_items(Kind::kTuple, pop_to_mark()), true;
    case 0x85:
    case 0x86:
    case 0x87:
      return push_items(Kind::kTuple, pop_some(opcode - 0x84u)), true;
    case 'a':
      return append(pop_some(1)), true;
    case 'e':
      return append(pop_to_mark()), true;
    case 's':
      return set_items(pop_some(2)), true;
    case 'u':
      return set_items(pop_to_mark()), true;
    default:
      return false;
  }
}

bool PickleMachine::step_text(unsigned char opcode) {
  switch (opcode) {
    case 'X':
      return push_text(Kind::kString, take(number<uint32_t>())), true;
    case 0x8c:
      return push_text(Kind::kString, take(number<uint8_t>())), true;
    case 0x8d:
      return push_text(Kind::kString, take(number<uint64_t>())), true;
    case 'B':
      return push_text(Kind::kBytes, take(number<uint32_t>())), true;
    case 'C':
      return push_text(Kind::kBytes, take(number<uint8_t>())), true;
    case 0x8e:
      return push_text(Kind::kBytes, take(number<uint64_t>())), true;
    default:
      return false;
  }
}

bool PickleMachine::step_number(unsigned char opcode) {
  switch (opcode) {
    case 'N':
      return push(make(Kind::kNone)), true;
    case 0x88:
    case 0x89:
      return push_integer(Kind::kBool, opcode == 0x88), true;
    case 'K':
      return push_integer(Kind::kInt, number<uint8_t>()), true;
    case 'M':
      return push_integer(Kind::kInt, number<uint16_t>()), true;
    case 'J':
      return push_integer(Kind::kInt, number<int32_t>()), true;
    case 0x8a:
      return push_long(take(number<uint8_t>())), true;
    case 0x8b:
      return push_long(take(number<uint32_t>())), true;
    case 'G':
      return push_float(), true;
    default:
      return false;
  }
}

bool PickleMachine::step_memo(unsigned char opcode) {
  switch (opcode) {
    case 'q':
      return memoize(number<uint8_t>()), true;
    case 'r':
      return memoize(number<uint32_t>()), true;
    case 0x94:
      return memoize(memo_.size()), true;
    case 'h':
      return recall(number<uint8_t>()), true;
    case 'j':
      return recall(number<uint32_t>()), true;
    default:
      return false;
  }
}

void PickleMachine::step() {
  const size_t place = at_;
  const auto opcode = number<uint8_t>();
  if (step_container(opcode) || step_text(opcode) || step_number(opcode) || step_memo(opcode)) return;
  switch (opcode) {
    case 0x80: {
      const int protocol = number<uint8_t>();
      if (protocol < 2 || protocol > 5) refuse("protocol ", protocol, "; known are 2 to 5");
      return;
    }
    case 0x95:
      take(8);  // how long a frame is: nothing that matters here
      return;
    case 'c': {
      const std::string module = line();
      return push_global(module, line());
    }
    case 0x93: {
      const Items names = pop_some(2);
      if (names[0]->kind != Kind::kString || names[1]->kind != Kind::kString)
        refuse("a global without a name at byte ", place);
      return push_global(names[0]->text, names[1]->text);
    }
    case 'R':
      return call();
    case 'b':
      return build();
    case 'Q':
      return persistent();
    case '.':
      pickle_.root = pop();
      done_ = true;
      return;
    default:
      refuse("opcode ", static_cast<int>(opcode), " at byte ", place,
             ", which tensors do not need (nothing was executed)");
  }
}

}  // namespace

Pickle read_pickle(const std::string& path, std::string_view bytes) {
  if (std::cmp_greater(bytes.size(), kMaxPickleBytes))
    fail(ErrorKind::kWeights, path, ": expected a pickle of at most ", kMaxPickleBytes, " bytes; got ", bytes.size());
  return PickleMachine(path, bytes).run();
}

}  // namespace permafrost
