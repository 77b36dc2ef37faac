#include "core/weights/pickle_reader.h"

#include "core/weights/torch_contents.h"
#include "tests/support/compare.h"
#include "tests/weights/pickle_writer.h"

namespace permafrost::testing {
namespace {

using Kind = PickleValue::Kind;

::testing::AssertionResult refused(const std::string& root, std::vector<std::string> parts) {
  parts.push_back("f.pth: ");
  return throws_error([&] { torch_contents("f.pth", read_pickle("f.pth", p_file(root))); }, ErrorKind::kWeights, parts);
}

const std::string kTensor = p_tensor(p_storage("FloatStorage", "0", 4), 0, {4}, {1});

TEST(PickleReader, ReadsPlainValues) {
  const Pickle pickle = read_pickle(
      "f", p_file(p_tuple({"N", "\x88", "K\x07", "M\x01\x02", std::string("J\xfe\xff\xff\xff", 5), p_int(-5),
                           std::string("\x8a\x01\x80", 3), std::string("\x8a\x00", 2),
                           std::string("G\x3f\xf8\0\0\0\0\0\0", 9), p_text("text"), std::string("\x8c\x02hi", 4),
                           std::string("C\x02\x01\xff", 4), std::string("\x8a\x09", 2) + std::string(9, '\1'),
                           "]K\x01"
                           "a",
                           "](K\x01K\x02"
                           "e"})));
  const auto& items = pickle.root->items;
  ASSERT_EQ(items.size(), 15u);
  EXPECT_EQ(items[0]->kind, Kind::kNone);
  EXPECT_EQ(items[1]->kind, Kind::kBool);
  const std::vector<int64_t> expected{0, 1, 7, 513, -2, -5, -128, 0};
  for (size_t i = 1; i < expected.size(); ++i) EXPECT_EQ(items[i]->integer, expected[i]) << i;
  EXPECT_EQ(items[8]->real, 1.5);
  EXPECT_EQ(items[9]->text + items[10]->text, "texthi");
  EXPECT_EQ(items[11]->text, "\x01\xff");
  EXPECT_EQ(items[12]->kind, Kind::kOther);
  EXPECT_EQ(items[13]->items.size() + items[14]->items.size(), 3u);
}

TEST(PickleReader, RemembersAndRecalls) {
  const Pickle pickle = read_pickle("f", p_file(std::string("K\x05q\x03") + std::string("r\x00\x01\x00\x00", 5) +
                                                "h\x03" + std::string("j\x00\x01\x00\x00", 5) + "\x87"));
  for (const PickleValue* item : pickle.root->items) EXPECT_EQ(item->integer, 5);
  const Pickle fresh = read_pickle("f", p_file("K\x05\x94K\x06\x94" + std::string("h\x00h\x01\x86", 5)));
  EXPECT_EQ(fresh.root->items[1]->integer, 6);
}

TEST(PickleReader, RefusesCodeByName) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"builtins", "exec"},
                                                        {"subprocess", "Popen"},
                                                        {"torch", "load"},
                                                        {"torch.hub", "load"},
                                                        {"builtins", "getattr"},
                                                        {"numpy.core.multiarray", "_reconstruct"},
                                                        {"torch._utils", "_rebuild_sparse_tensor"},
                                                        {"collections OrderedDict", ""},
                                                        {"", ""}}) {
    const std::string said = "global " + module + "." + name;
    EXPECT_TRUE(
        refused(p_call(p_global(module, name), p_tuple({p_text("touch executed")})), {said, "nothing was executed"}));
    EXPECT_TRUE(refused(p_text(module) + p_text(name) + "\x93", {said}));
  }
  EXPECT_TRUE(refused(p_call(p_text("system"), ")"), {"no known function"}));
  EXPECT_TRUE(refused("K\x01K\x02\x93", {"a global without a name"}));
}

TEST(PickleReader, ShowsTheBeginningOfLongNames) {
  const std::string name(1'000'000, 'A');
  EXPECT_TRUE(refused(p_global("m", name), {"got global m." + name.substr(0, 198) + ", which tensors do not need"}));
}

TEST(PickleReader, RefusesOpcodesThatTensorsDoNotNeed) {
  const std::string known(
      "}])t\x85\x86\x87"
      "aesuX\x8c\x8d"
      "BC\x8eN\x88\x89KMJ\x8a\x8bGqr\x94hjc\x93RbQ.(\x80\x95");
  for (int opcode = 0; opcode < 256; ++opcode) {
    if (known.find(static_cast<char>(opcode)) != std::string::npos) continue;
    EXPECT_TRUE(refused(std::string("K\x01K\x02K\x03") + static_cast<char>(opcode),
                        {concat("opcode ", opcode, " at byte 8"), "nothing was executed"}));
  }
  EXPECT_TRUE(throws_error([] { read_pickle("f", "\x80\x01N."); }, ErrorKind::kWeights, {"protocol 1", "2 to 5"}));
  EXPECT_TRUE(throws_error([] { read_pickle("f", "\x80\x06N."); }, ErrorKind::kWeights, {"protocol 6"}));
}

TEST(PickleReader, RefusesOtherUsesOfKnownGlobals) {
  const auto call = [](const char* module, const char* name, const std::vector<std::string>& arguments) {
    return p_call(p_global(module, name), p_tuple(arguments));
  };
  for (const std::string& root :
       {call("torch", "FloatStorage", {"K\x05"}), call("torch._utils", "_rebuild_tensor_v2", {"K\x05"}),
        call("torch._utils", "_rebuild_tensor_v2", {"N", p_int(0), p_ints({1}), p_ints({1}), "\x89", "}"}),
        call("torch._utils", "_rebuild_tensor_v2",
             {p_storage("FloatStorage", "0", 1), p_text("x"), p_ints({1}), p_ints({1}), "\x89", "}"}),
        call("torch._utils", "_rebuild_tensor_v2",
             {p_storage("FloatStorage", "0", 1), p_int(0), p_tuple({p_text("1")}), p_ints({1}), "\x89", "}"}),
        call("torch._utils", "_rebuild_parameter", {"N"}), call("torch._utils", "_rebuild_parameter", {}),
        call("torch._tensor", "_rebuild_from_type_v2", {p_global("torch", "Size"), "N", ")", "}"}),
        call("collections", "OrderedDict", {"K\x05"}), call("collections", "OrderedDict", {"](" + p_ints({1}) + "e"}),
        call("torch", "Size", {p_text("x")}), call("_codecs", "encode", {p_text("x"), p_text("rot13")}),
        call("numpy", "dtype", {}), call("numpy.core.multiarray", "scalar", {"N", "N"})})
    EXPECT_TRUE(refused(root, {"a call of ", "nothing was executed"}));
  EXPECT_TRUE(refused(p_int(5) + "Q", {"a persistent id that is no storage"}));
  EXPECT_TRUE(
      refused(p_tuple({p_text("storage"), p_text("x"), p_text("0"), p_text("cpu"), p_int(1)}) + "Q", {"no storage"}));
  EXPECT_TRUE(refused(
      p_tuple({p_text("storage"), p_global("torch", "FloatStorage"), p_text("0"), p_text("cpu"), p_int(-1)}) + "Q",
      {"no storage"}));
  EXPECT_TRUE(refused("K\x01}b", {"attributes for something that takes none"}));
}

TEST(PickleReader, DecodesLatin1) {
  const auto encoded = [](const std::string& text) {
    return p_call(p_global("_codecs", "encode"), p_tuple({p_text(text), p_text("latin1")}));
  };
  EXPECT_EQ(read_pickle("f", p_file(encoded("a\xc2\x80\xc3\xbf"))).root->text, "a\x80\xff");
  for (const char* text : {"\xc3",
                           "\xc3"
                           "A",
                           "\xc3\xff", "\xc4\x80", "\xff", "\xe2\x82\xac"})
    EXPECT_TRUE(refused(encoded(text), {"a call of _codecs.encode"})) << text;
}

TEST(PickleReader, RefusesBrokenOnesWhereverTheyBreak) {
  const std::string whole = p_file(p_dict({p_text("a"), kTensor}));
  EXPECT_EQ(torch_contents("f", read_pickle("f", whole)).tensors.size(), 1u);
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_TRUE(throws_error([&] { read_pickle("f", whole.substr(0, length)); }, ErrorKind::kWeights,
                             {"f: expected a pickle of tensors", "cut short"}))
        << length;
  for (const std::string root :
       {"t", "R", "Q", "u", "a", "e", "s", "b", "\x93", "\x85", "q\x01", "(", "(.", "h\x01", "K\x01(a", "}(K\x01u",
        "K\x01K\x01"
        "a",
        "]K\x01K\x02s"})
    EXPECT_TRUE(refused(root, {"expected a pickle of tensors"})) << root;
  EXPECT_TRUE(refused(std::string("X\xff\xff\xff\x7f", 5), {"cut short: 2147483647 bytes wanted"}));
  EXPECT_TRUE(refused("\x8d" + std::string(8, '\xff'), {"cut short: 18446744073709551615 bytes wanted"}));
}

TEST(PickleReader, LimitsMemory) {
  EXPECT_TRUE(refused(std::string(size_t{3} << 20, ']'), {"more than 2097152 values"}));
  EXPECT_TRUE(refused(std::string(size_t{5} << 20, '('), {"more than 4194304 values on its stack"}));
  EXPECT_TRUE(refused(std::string("K\x01r\xff\xff\xff\xff"), {"memo number 4294967295"}));
  EXPECT_TRUE(refused(std::string("K\x01j\xff\xff\xff\xff"), {"memo number 4294967295"}));
  // The same long text made into bytes again and again, out of a few bytes of pickle each.
  std::string bomb = p_global("_codecs", "encode") + "q" + std::string(1, '\0') +
                     p_tuple({p_text(std::string(1 << 20, 'a')), p_text("latin1")}) + "q\x01";
  for (int i = 0; i < 100; ++i) bomb += std::string("h\0h\1R", 5);
  EXPECT_TRUE(refused(bomb, {"more than 67108864 bytes made by calls"}));
  std::string many = p_global("collections", "OrderedDict") + "q" + std::string(1, '\0') + "}(";
  for (int i = 0; i < 200'000; ++i) many += "NN";
  many += "u\x85q\x01";
  for (int i = 0; i < 100; ++i) many += std::string("h\0h\1R", 5);
  EXPECT_TRUE(refused(many, {"more than 67108864 bytes made by calls"}));
}

TEST(PickleReader, LimitsNestingAndSharing) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "}(" + p_text("k");
  deep += kTensor;
  for (int i = 0; i < 100'000; ++i) deep += "u";
  EXPECT_TRUE(refused(deep, {"nested at most 32 deep"}));
  EXPECT_TRUE(refused(p_dict({p_text("model"), deep}), {"nested at most 32 deep"}));
  EXPECT_TRUE(refused(std::string("]q\0h\0a", 6), {"nested at most 32 deep"}));  // a list in itself
  // Lists that hold the one before twice: 30 of them mean 2^30 values.
  std::string doubled = "]q" + std::string(1, '\0');
  for (char i = 0; i < 30; ++i) doubled += std::string("](h") + i + "h" + i + "eq" + static_cast<char>(i + 1);
  EXPECT_TRUE(refused(doubled, {"at most 1000000 values"}));
  EXPECT_TRUE(refused(p_dict({p_text("model"), p_dict({p_text("a"), kTensor}), p_text("config"), p_tuple({doubled})}),
                      {"at most 1000000 values"}));
}

std::string repeated(size_t count, const std::string& text) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}
std::string p_list(size_t count, const std::string& item) { return "](" + repeated(count, item) + "e"; }

TEST(TorchContents, LimitsWhatEachEntryHolds) {
  const std::string tensors = p_dict({p_text("a"), kTensor}), history = p_list(600'000, "K\x01");
  const Pickle pickle = read_pickle("f", p_file(p_dict({p_text("model"), tensors, p_text("history"), history})));
  const TorchContents contents = torch_contents("f", pickle);
  EXPECT_EQ(contents.tensors.size(), 1u);
  EXPECT_EQ(contents.metadata.size(), 1u) << "longer than 64 KiB as JSON";
  EXPECT_TRUE(
      refused(p_dict({p_text("model"), tensors, p_text("x"), p_list(1'000'000, "N")}), {"at most 1000000 values"}));
  // A large entry under many names.
  std::string many = "}(" + p_text("model") + tensors + p_text("x") + p_list(900'000, "N") + "q" + std::string(1, '\0');
  for (int i = 0; i < 20; ++i) many += p_text(concat("x", i)) + "h" + std::string(1, '\0');
  EXPECT_TRUE(refused(many + "u", {"at most 8388608 values"}));
}

TEST(TorchContents, LimitsTheMemoryOfSharedTexts) {
  const std::string zero(1, '\0'), text = p_text(std::string(1 << 20, 'x')) + "q" + zero;
  const std::string tensors = p_dict({p_text("a"), kTensor});
  // 1 MiB of text 100,000 times.
  const Pickle pickle = read_pickle(
      "f", p_file(p_dict({p_text("model"), tensors, p_text("x"), p_tuple({text, p_list(100'000, "h" + zero)})})));
  EXPECT_EQ(torch_contents("f", pickle).metadata.size(), 1u);
  const auto named = [&](size_t bytes) {
    return p_dict({p_text(std::string(bytes, 'n')), "](" + kTensor + "q\1" + repeated(100'000, "h\1") + "e"});
  };
  EXPECT_TRUE(refused(named(4097), {"keys of UTF-8 text of at most 4096 bytes; got 4097 bytes"}));
  EXPECT_TRUE(refused(named(4096), {"names of at most 67108864 bytes together"}));
}

TEST(TorchContents, FindsTheModelsTensors) {
  const auto names = [](const std::string& root) {
    const Pickle pickle = read_pickle("f", p_file(root));
    std::string all;
    for (const auto& [name, value] : torch_contents("f", pickle).tensors) all += name + " ";
    return all;
  };
  const std::string two = p_dict({p_text("a"), kTensor, p_text("b.c"), kTensor, p_text("n"), "N"});
  EXPECT_EQ(names(two), "a b.c ");
  for (const char* entry : {"model", "state_dict", "model_state", "model_state_dict", "module"})
    EXPECT_EQ(names(p_dict({p_text("optimizer"), two, p_text(entry), two})), "a b.c ") << entry;
  EXPECT_EQ(names(p_dict({p_text("x"), two, p_text("y"), "]" + kTensor + "a"})), "x.a x.b.c y.0 ");
  EXPECT_EQ(names(p_dict({p_text("model"), p_text("vit"), p_text("w"), kTensor})), "w ");
  EXPECT_EQ(names(p_dict({p_int(3), kTensor})), "3 ");
  EXPECT_EQ(names(kTensor), "tensor ");
  EXPECT_TRUE(refused(p_dict({p_text("a"), "N"}), {"got a pickle without any"}));
  EXPECT_TRUE(refused(p_dict({p_text("\xff"), kTensor}), {"keys of UTF-8 text"}));
}

}  // namespace
}  // namespace permafrost::testing
