#include "data/tokenizer/tokenizer.h"

#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <thread>

#include "core/base/json.h"
#include "data/files/json_file.h"
#include "data/tokenizer/unicode.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Ids = std::vector<int32_t>;

Tokenizer golden_tokenizer(const std::string& name, const std::filesystem::path& root) {
  if (name == "gpt2") return Tokenizer::load({root / "gpt2", TokenizerRules::kGpt2, {}});
  if (name == "roberta") return Tokenizer::load({root / "opt", TokenizerRules::kRoberta, {}});
  if (name == "opt_answer") return Tokenizer::load({root / "opt", TokenizerRules::kOpt, {"</a>"}});
  return Tokenizer::load({root / "opt", TokenizerRules::kOpt, {}});
}

TEST(Tokenizer, EncodesAsTransformers) {
  const auto root = test_data("tokenizers");
  PERMAFROST_NEEDS(root);
  const auto golden = parse_json_file(golden_path("bpe.json"));
  for (const std::string kind : {"opt", "opt_answer", "gpt2", "roberta"}) {
    const Tokenizer tokenizer = golden_tokenizer(kind, *root);
    const auto& described = golden["tokenizers"][kind];
    EXPECT_EQ(tokenizer.prefix(), described["prefix_ids"].get<Ids>()) << kind;
    EXPECT_EQ(tokenizer.suffix(), described["suffix_ids"].get<Ids>()) << kind;
    for (const auto& special : described["specials"]) {
      const int32_t id = tokenizer.id_of(special["text"].get<std::string>());
      EXPECT_EQ(id, special["id"].get<int32_t>()) << kind << ' ' << special["text"];
    }
    int texts = 0;
    for (const auto& entry : golden["encode"]) {
      if (!entry.contains(kind)) continue;
      const std::string text = from_base64(entry["text"].get<std::string>());
      EXPECT_EQ(tokenizer.encode(text), entry[kind].get<Ids>()) << kind << ' ' << entry["name"];
      ++texts;
    }
    EXPECT_GT(texts, 10) << kind;
  }
}

TEST(Tokenizer, DecodesAsTransformers) {
  const auto root = test_data("tokenizers");
  PERMAFROST_NEEDS(root);
  const auto golden = parse_json_file(golden_path("bpe.json"));
  std::map<std::string, Tokenizer> tokenizers;
  for (const auto& entry : golden["decode"]) {
    const auto kind = entry["tokenizer"].get<std::string>();
    if (!tokenizers.contains(kind)) tokenizers.emplace(kind, golden_tokenizer(kind, *root));
    const Tokenizer& tokenizer = tokenizers.at(kind);
    const auto ids = entry["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.decode_bytes(ids), from_base64(entry["bytes"].get<std::string>())) << entry["name"];
    EXPECT_EQ(tokenizer.decode(ids), from_base64(entry["text"].get<std::string>())) << entry["name"];
    EXPECT_EQ(tokenizer.decode(ids, true), from_base64(entry["text_skip_special"].get<std::string>())) << entry["name"];
  }
}

TEST(Tokenizer, PublishedExamples) {
  const auto root = test_data("tokenizers");
  PERMAFROST_NEEDS(root);
  const Tokenizer opt = golden_tokenizer("opt_answer", *root);
  EXPECT_EQ(opt.encode(""), (Ids{2}));
  EXPECT_EQ(opt.encode("I like you."), (Ids{2, 100, 101, 47, 4}));
  EXPECT_EQ(opt.size(), 50266);
  EXPECT_EQ(opt.id_of("</a>"), 50265);
  const Ids dog = opt.encode("q?</a>dog");
  EXPECT_EQ(opt.decode(std::span(dog).subspan(3)), "</a> dog");
}

TEST(Tokenizer, MergesByHand) {
  const Tokenizer tokenizer = small_tokenizer();
  const auto id = [&](std::string_view token) { return tokenizer.id_of(token); };
  EXPECT_EQ(tokenizer.size(), 264);
  EXPECT_EQ(tokenizer.encode("the the a"), (Ids{2, id("t"), id("he"), id(" the"), id(" a")}));
  EXPECT_EQ(tokenizer.encode(" theme"), (Ids{2, id(" the"), id("m"), id("e")}));
  EXPECT_EQ(tokenizer.encode("hhee"), (Ids{2, id("h"), id("he"), id("e")}));
}

/// Any bytes come back: random ones, ill-formed UTF-8, and text with errors inside.
TEST(Tokenizer, AnyBytesRoundTrip) {
  const Tokenizer tokenizer = small_tokenizer();
  Random random(7, RandomPurpose::kSynthetic);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    const auto length = random.next_below(60);
    for (uint64_t i = 0; i < length; ++i) {
      switch (random.next_below(4)) {
        case 0:
          text += static_cast<char>(static_cast<unsigned char>(random.next_below(256)));
          break;
        case 1:
          text += " the";
          break;
        case 2:
          append_utf8(text, static_cast<char32_t>(0xA0 + random.next_below(0x2000)));
          break;
        default:
          text += "\xF0\x9F\x98";
          break;  // an emoji cut short
      }
    }
    Ids ids;
    tokenizer.encode_plain(text, ids);
    EXPECT_EQ(tokenizer.decode_bytes(ids), text) << "round " << round;
  }
}

TEST(Tokenizer, RoundTripsWithTheRealVocabulary) {
  const auto root = test_data("tokenizers");
  PERMAFROST_NEEDS(root);
  const Tokenizer opt = golden_tokenizer("opt", *root);
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(static_cast<unsigned char>(b));
  Ids ids;
  opt.encode_plain(all + "caf\xC3\xA9" + all, ids);
  EXPECT_EQ(opt.decode_bytes(ids), all + "caf\xC3\xA9" + all);
}

TEST(Tokenizer, SpecialTokensInsideText) {
  const DataFolder folder;
  write_small_vocabulary(folder);
  const Tokenizer tokenizer = Tokenizer::load({folder.path(), TokenizerRules::kOpt, {"</a>", "</a></a>"}});
  const auto id = [&](std::string_view token) { return tokenizer.id_of(token); };
  EXPECT_EQ(id("</a>"), 264);
  EXPECT_EQ(id("</a></a>"), 265);
  EXPECT_EQ(tokenizer.encode("h \xC2\xA0</a>\n h</s> h"), (Ids{2, id("h"), 264, id("h"), 2, id(" "), id("h")}));
  EXPECT_EQ(tokenizer.encode("</a></a></a>"), (Ids{2, 265, 264}));  // the longest wins
  EXPECT_EQ(tokenizer.encode("</a> </a>"), (Ids{2, 264, 264}));
  EXPECT_EQ(tokenizer.decode(Ids{264, id("h"), 264}), "</a> h </a>");
  EXPECT_EQ(tokenizer.decode(Ids{264, id("h"), 264}, true), "h");
}

TEST(Tokenizer, TokenizerJsonGivesTheSameTokenizer) {
  const DataFolder folder;
  write_small_vocabulary(folder, "pair/");
  Json root;
  root["model"]["type"] = "BPE";
  root["model"]["vocab"] = parse_json_file(folder.path() / "pair/vocab.json");
  root["model"]["merges"] = Json::array();
  std::ifstream merges(folder.path() / "pair/merges.txt");
  std::string line;
  std::getline(merges, line);
  for (bool as_list = false; std::getline(merges, line); as_list = !as_list) {  // both spellings occur in the wild
    const size_t space = line.find(' ');
    if (as_list) {
      root["model"]["merges"].push_back({line.substr(0, space), line.substr(space + 1)});
    } else {
      root["model"]["merges"].push_back(line);
    }
  }
  root["pre_tokenizer"]["type"] = "ByteLevel";
  const auto plain = folder.write("plain/tokenizer.json", json_text(root));
  root["added_tokens"] = {{{"id", 264}, {"content", "</a>"}, {"lstrip", true}, {"rstrip", false}}};
  folder.write("added/tokenizer.json", json_text(root));

  const Tokenizer pair = Tokenizer::load({folder.path() / "pair", TokenizerRules::kOpt, {}});
  EXPECT_EQ(Tokenizer::load({plain, TokenizerRules::kOpt, {}}).hash(), pair.hash());
  EXPECT_EQ(pair.hash().size(), 64u);
  const Tokenizer added = Tokenizer::load({folder.path() / "added", TokenizerRules::kOpt, {}});
  EXPECT_NE(added.hash(), pair.hash());
  EXPECT_EQ(added.encode("a </a> a"), (Ids{2, added.id_of("a"), 264, added.id_of(" a")}));
  EXPECT_NE(Tokenizer::load({plain, TokenizerRules::kOpt, {"</a>"}}).hash(), pair.hash());
}

TEST(Tokenizer, EncodesFromSeveralThreads) {
  const Tokenizer tokenizer = small_tokenizer();
  const std::string text = "the cat, the hat and a theme \xE6\x88";
  const Ids expected = tokenizer.encode(text);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) wrong[t] += tokenizer.encode(text) != expected;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

/// One piece of a megabyte must not take quadratic time, and the speed on captions is printed (never asserted).
TEST(Tokenizer, LongPiecesAndSpeed) {
  const auto root = test_data("tokenizers");
  PERMAFROST_NEEDS(root);
  const Tokenizer opt = golden_tokenizer("opt", *root);
  Ids ids;
  opt.encode_plain(std::string(1 << 20, 'a'), ids);
  EXPECT_EQ(opt.decode_bytes(ids), std::string(1 << 20, 'a'));
  ids.clear();
  opt.encode_plain(std::string(1 << 20, ' ') + "x", ids);
  EXPECT_EQ(opt.decode_bytes(ids), std::string(1 << 20, ' ') + "x");

  const auto captions = test_data("coco_captions/captions_val2017.json");
  PERMAFROST_NEEDS(captions);
  std::vector<std::string> texts;
  size_t bytes = 0;
  const auto root_json = parse_json_file(*captions);
  for (const auto& annotation : root_json["annotations"]) {
    texts.push_back(annotation["caption"].get<std::string>());
    bytes += texts.back().size();
  }
  const auto start = std::chrono::steady_clock::now();
  size_t tokens = 0;
  for (const auto& text : texts) tokens += opt.encode(text).size();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << "tokenizer: " << texts.size() << " captions, " << bytes << " bytes, " << tokens << " tokens, "
            << static_cast<double>(bytes) / seconds * 1e-6 << " MB/s on one core\n";
  EXPECT_GT(tokens, texts.size());
}

TEST(Unicode, StepsAndStrips) {
  EXPECT_EQ(replace_invalid_utf8("a\xE6\x88z\xF0\x9F\x98\xF0\x9F\x98\x80"),
            "a\xEF\xBF\xBDz\xEF\xBF\xBD\xF0\x9F\x98\x80");
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xED\xA0\x80"),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(strip(" \t\xE3\x80\x80 x \xC2\x85\n\x1c"), "x");
  EXPECT_EQ(strip(" \n "), "");
  EXPECT_EQ(strip_right("x\x80 "), "x\x80");
  EXPECT_EQ(strip_left("\xE2\x80\x8Bx"), "\xE2\x80\x8Bx");  // zero width space is not white space
}

}  // namespace
}  // namespace permafrost::testing
