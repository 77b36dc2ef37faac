// permafrost generate and the model mode of permafrost eval, through the program.
#include "data/images/decode.h"
#include "data/images/sheet.h"
#include "tests/launch/evaluation_fixture.h"

namespace permafrost {
namespace {

using Generate = EvaluationTest;
using Eval = EvaluationTest;

std::vector<std::string> lines_of(const std::string& text, const std::string& part) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; begin = end + 1, end = text.find('\n', begin))
    if (text.substr(begin, end - begin).find(part) != std::string::npos)
      lines.push_back(text.substr(begin, end - begin));
  return lines;
}

TEST_F(Generate, SaysTheSameOfAnImageAloneInAFolderAndInAList) {
  const Outcome alone = generate("--image " + image(2)), folder = generate("--image " + (photos() / "images").string());
  ASSERT_TRUE(ends(alone, 0, {image(2) + "\t", "adapter: "}));
  ASSERT_TRUE(ends(folder, 0, {}));
  const auto line = lines_of(alone.output, image(2) + "\t");
  ASSERT_EQ(line.size(), 1u);
  EXPECT_EQ(lines_of(folder.output, image(2) + "\t"), line);
  EXPECT_EQ(lines_of(folder.output, "/images/0").size(), 12u);

  write_file(folder_ / "list.txt", image(5) + "\n\n" + image(2) + "\r\n");
  const Outcome list =
      generate("--image " + (folder_ / "list.txt").string() + " --json " + (folder_ / "out.json").string());
  ASSERT_TRUE(ends(list, 0, {}));
  EXPECT_EQ(lines_of(list.output, image(2) + "\t"), line);
  const Json json = parse_json(read_file(folder_ / "out.json"));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[1]["image"], image(2));
  EXPECT_LE(json[1]["tokens"].size(), 6u);
  EXPECT_LT(json[1]["score"].get<double>(), 0.0);
  EXPECT_FALSE(json[1].contains("question"));
  EXPECT_NE(line[0].find(json[1]["text"].get<std::string>()), std::string::npos);
}

TEST_F(Generate, AnswersQuestions) {
  const std::string vqa = " --set data.task=VQA --set data.format=VLT5 ";
  const Outcome one = generate(vqa + "--image " + image() + " --question 'what is left?'");
  ASSERT_TRUE(ends(one, 0, {image() + "\t"}));
  write_file(photos() / "images" / "list.txt", "000000.jpg\twhat is left?\n000002.jpg\n");
  const Outcome listed =
      generate(vqa + "--question 'what is there?' --image " + (photos() / "images" / "list.txt").string() + " --json " +
               (folder_ / "out.json").string());
  ASSERT_TRUE(ends(listed, 0, {}));
  EXPECT_EQ(lines_of(listed.output, image() + "\t"), lines_of(one.output, image() + "\t"));
  const Json json = parse_json(read_file(folder_ / "out.json"));
  EXPECT_EQ(json[0]["question"], "what is left?");
  EXPECT_EQ(json[1]["question"], "what is there?");
  EXPECT_TRUE(ends(generate(vqa + "--image " + image()), 2, {"generate: a question is expected", "got none for "}));
}

/// It is evaluation.data that says what is asked, and of no dataset more than its tokenizer is needed.
TEST_F(Generate, ReadsEvaluationDataAndNoDataset) {
  const Outcome inherited = generate("--set data.task=VQA --set data.format=VLT5 --image " + image() + " --question x");
  const Outcome own =
      generate("--set evaluation.data.task=VQA --set evaluation.data.format=VLT5 --image " + image() + " --question x");
  ASSERT_TRUE(ends(inherited, 0, {image() + "\t"}));
  EXPECT_EQ(lines_of(own.output, image() + "\t"), lines_of(inherited.output, image() + "\t"));
  const std::string alone = "generate " + config() + settings() + " --adapter " + checkpoint() + " --image " + image();
  const Outcome without = run(alone + " --set data.tokenizer.root=" + (photos() / "tokenizer").string());
  ASSERT_TRUE(ends(without, 0, {}));
  EXPECT_EQ(lines_of(without.output, image() + "\t"), lines_of(generate("--image " + image()).output, image() + "\t"));
  EXPECT_TRUE(ends(run(alone + " --set data.tokenizer.root="), 2, {"evaluation.data.tokenizer.root: expected"}));
  EXPECT_TRUE(ends(generate("--set evaluation.data.task=CLASSES --set evaluation.data.format=SHARDS --set "
                            "evaluation.data.shards=x --image " +
                            image()),
                   2, {"evaluation.data.task: expected CAPTIONING or VQA, texts being generated; got CLASSES"}));
}

TEST_F(Generate, NamesWhatIsWrong) {
  EXPECT_TRUE(ends(generate("--image " + (folder_ / "none.jpg").string()), 3,
                   {"generate: --image must be an image, a folder or a list of images; got ", "which is not there"}));
  std::filesystem::create_directories(folder_ / "empty");
  EXPECT_TRUE(ends(generate("--image " + (folder_ / "empty").string()), 3,
                   {"at least one .jpg, .jpeg or .png file; got none in "}));
  write_file(folder_ / "empty.txt", "\n");
  EXPECT_TRUE(ends(generate("--image " + (folder_ / "empty.txt").string()), 3, {"at least one image; got none in "}));
  write_file(folder_ / "bad.txt", image() + "\nnone.jpg\n");
  EXPECT_TRUE(ends(generate("--image " + (folder_ / "bad.txt").string()), 3, {"none.jpg [", "bad.txt:2]"}));
  write_file(folder_ / "text.jpg", "no image");
  EXPECT_TRUE(ends(generate("--image " + (folder_ / "text.jpg").string()), 3, {"text.jpg"}));
  EXPECT_TRUE(ends(generate("--image " + image() + " --question 'what?'"), 2,
                   {"no question expected where evaluation.data.task is CAPTIONING; got \"what?\""}));
  EXPECT_TRUE(ends(generate("--image " + image() + " --set evaluation.decoding.beams=0"), 2,
                   {"evaluation.decoding.beams: expected 1 to 64; got 0"}));
  EXPECT_TRUE(
      ends(generate("--image " + image() + " --set evaluation.decoding.max_new_tokens=513"), 2,
           {"evaluation.decoding.max_new_tokens: prompt and new tokens must fit the text model's 512 positions"}));
  EXPECT_TRUE(ends(generate("--image " + image() + " --set model.epalm.text.ffn=128"), 3,
                   {"adapter.safetensors: weights must fit the model exactly", "fc1.weight' must be (128, 64)"}));
  EXPECT_TRUE(ends(run("generate " + model() + " --adapter " + (folder_ / "none").string() + " --image " + image()), 3,
                   {"none: expected a file of weights"}));
  EXPECT_TRUE(ends(run("generate " + model() + settings() + " --image " + image()), 0,
                   {"adapter: no trained parameters were named", "are used\n"}));
  EXPECT_TRUE(ends(run("generate " + (dir() / "config.textproto").string() + settings() + " --image " + image()), 0,
                   {"are used; this run's last are --adapter " + checkpoint()}));
  const std::filesystem::path best = dir() / "checkpoints" / "best";
  std::filesystem::create_directory(best);
  const Outcome named = run("generate " + (dir() / "config.textproto").string() + settings() + " --image " + image());
  std::filesystem::remove(best);
  EXPECT_TRUE(ends(named, 0, {"are used; this run's best are --adapter " + best.string()}));
}

TEST_F(Generate, CacheOnIsRefusedWhereItIsNotExactAndAutoSaysSo) {
  const std::string window = " --set quirks.vis_row=PUBLISHED --set model.epalm.end_layer=1 --image " + image();
  EXPECT_TRUE(ends(
      generate("--set evaluation.decoding.cache=ON" + window), 2,
      {"evaluation.decoding.cache: AUTO or OFF expected for this model; got ON", "2 text layers behind the window"}));
  const Outcome automatic = generate(window), off = generate("--set evaluation.decoding.cache=OFF" + window);
  ASSERT_TRUE(ends(automatic, 0, {"decoding: no keys and values are kept"}));
  EXPECT_EQ(lines_of(off.output, image() + "\t"), lines_of(automatic.output, image() + "\t"));
  EXPECT_EQ(off.output.find("no keys and values are kept"), std::string::npos);
  // With one layer behind it, cached and recomputed agree.
  const std::string near =
      " --set quirks.vis_row=PUBLISHED --set model.epalm.end_layer=2 --image " + (photos() / "images").string();
  const Outcome kept = generate("--set evaluation.decoding.cache=ON" + near),
                whole = generate("--set evaluation.decoding.cache=OFF" + near);
  ASSERT_TRUE(ends(kept, 0, {}));
  EXPECT_EQ(kept.output, whole.output);
}

TEST_F(Eval, ScoresCaptionsAndWritesResultFiles) {
  const std::string out = (folder_ / "out").string();
  ASSERT_TRUE(ends(eval("--set evaluation.exchanged_images=true --out " + out), 0,
                   {"12 images", "CIDEr", "with exchanged images: 12 images"}));
  const Json results = parse_json(read_file(folder_ / "out" / "results.json"));
  const Json scores = parse_json(read_file(folder_ / "out" / "scores.json"));
  ASSERT_EQ(results.size(), 12u);
  EXPECT_EQ(results[3]["image_id"], 3);
  EXPECT_EQ(scores["evaluation"]["texts"], 12);
  EXPECT_TRUE(scores["evaluation"]["scores"].contains("cider"));
  EXPECT_TRUE(scores["evaluation"]["scores"].contains("exact_match"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out" / "results_exchanged.json"));
  // The scores are those of the files, scored without a model.
  const Outcome files =
      run("eval --json --results " + out + "/results.json --annotations " + (photos() / "captions.json").string());
  ASSERT_TRUE(ends(files, 0, {}));
  const Json again = parse_json(files.output);
  for (const char* metric : {"bleu_1", "bleu_4", "rouge_l", "cider"})
    EXPECT_EQ(again["scores"][metric], scores["evaluation"]["scores"][metric]) << metric;
  const Outcome few = eval("--json --metrics cider --set evaluation.samples=5");
  ASSERT_TRUE(ends(few, 0, {"\"texts\": 5"}));
  EXPECT_TRUE(ends(eval("--metrics vqa_accuracy"), 2, {"evaluation: the data have the metrics bleu_1"}));
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

TEST_F(Eval, ScoresAnswers) {
  const std::string out = (folder_ / "out").string();
  ASSERT_TRUE(ends(eval(about_questions() + " --out " + out), 0, {"7 questions", "soft label"}));
  const Json results = parse_json(read_file(folder_ / "out" / "results.json"));
  ASSERT_EQ(results.size(), 7u);
  EXPECT_EQ(results[0]["question_id"], 100);
  EXPECT_TRUE(results[0].contains("answer"));
}

/// What people answered one by one is in the file alone: a dataset keeps answers with their shares.
TEST_F(Eval, TakesOfficialScoresOfAnswersFromTheirFile) {
  write_vqav2({});
  const std::string out = (folder_ / "out").string(), results = out + "/results.json";
  ASSERT_TRUE(ends(eval(on_vqav2() + "--out " + out), 0, {}));
  std::vector<std::string> said;
  for (const Json& entry : parse_json(read_file(results))) said.push_back(trimmed(entry["answer"]));
  ASSERT_EQ(said.size(), 6u);
  write_vqav2(said);
  const Outcome outcome = eval(on_vqav2() + "--out " + out);
  ASSERT_TRUE(ends(outcome, 0, {"6 questions", "VQA accuracy", "by question_type", "soft label"}));
  const Outcome files = run("eval --partial --json --results " + results + " --annotations " +
                            (photos() / "vqav2_annotations.json").string());
  ASSERT_TRUE(ends(files, 0, {}));
  const Json given = parse_json(read_file(folder_ / "out" / "scores.json"))["evaluation"],
             official = parse_json(files.output);
  EXPECT_EQ(given["annotations"], official["annotations"]);
  EXPECT_EQ(given["scored"], 6);
  EXPECT_EQ(given["groups"], official["groups"]);
  const double accuracy = official["scores"]["vqa_accuracy"];
  EXPECT_GT(accuracy, 0.0);
  EXPECT_LT(accuracy, 1.0);
  EXPECT_EQ(given["scores"]["vqa_accuracy"], accuracy);
  EXPECT_TRUE(given["scores"].contains("soft_label")) << "what the file does not give is the dataset's";
}

/// Texts [begin, end) that are what is expected.
int right_ones(const std::vector<std::string>& texts, const std::vector<std::string>& expected, size_t begin,
               size_t end) {
  int right = 0;
  for (size_t i = begin; i < end; ++i) right += trimmed(texts[i]) == trimmed(expected[i]);
  return right;
}

std::string percent(int right, int all) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100.0 * right / all);
  return text;
}

TEST_F(Eval, ScoresByFieldsOfTheAnnotations) {
  const std::vector<std::string> captions = half_right_captions();
  write_shards("shards", captions, held_out_annotations());
  const std::string by = on_shards("shards") + "--set evaluation.exchanged_images=true --set evaluation.group_by=";
  const Outcome outcome = eval(by + "held_out --out " + (folder_ / "out").string());
  ASSERT_TRUE(ends(outcome, 0,
                   {"exact match, held_out = true:", "CIDEr, held_out = false:", "held_out = none: 3 images\n",
                    "BLEU-1, held_out = none:"}));
  const auto texts = texts_in(folder_ / "out" / "results.json"),
             exchanged = texts_in(folder_ / "out" / "results_exchanged.json");
  const int all = right_ones(texts, captions, 0, 12), unseen = right_ones(texts, captions, 0, 4);
  EXPECT_EQ(all, 6);
  EXPECT_EQ(
      lines_of(outcome.output, " %"),
      std::vector<std::string>{"exact match: " + percent(all, 12) + " (held_out: " + percent(unseen, 4) +
                               ", exchanged images: " + percent(right_ones(exchanged, captions, 0, 12), 12) + ")"});
  EXPECT_TRUE(outcome.output.ends_with(" %)\n"));
  const Json json = parse_json(read_file(folder_ / "out" / "scores.json"));
  EXPECT_EQ(json["evaluation"]["group_by"], "held_out");
  const Json groups = json["evaluation"]["groups"];
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups["true"]["texts"], 4);
  EXPECT_EQ(groups["false"]["texts"], 5);
  EXPECT_EQ(groups["none"]["texts"], 3);
  EXPECT_EQ(groups["true"]["scores"]["exact_match"], unseen / 4.0);
  EXPECT_EQ(groups["false"]["scores"]["exact_match"], right_ones(texts, captions, 4, 9) / 5.0);
  EXPECT_EQ(groups["none"]["scores"]["exact_match"], right_ones(texts, captions, 9, 12) / 3.0);
  EXPECT_EQ(json["exchanged_images"]["groups"]["true"]["scores"]["exact_match"],
            right_ones(exchanged, captions, 0, 4) / 4.0);

  // A group's scores are those of its images alone: CIDEr counts documents there.
  write_shards("unseen", {captions.begin(), captions.begin() + 4}, {4, ""});
  const Outcome alone = eval(on_shards("unseen") + "--json");
  ASSERT_TRUE(ends(alone, 0, {}));
  const Json scores = parse_json(alone.output.substr(alone.output.find('{')))["evaluation"]["scores"];
  EXPECT_EQ(scores, groups["true"]["scores"]);

  // Numbers in rising order, and no group called true: the last line says so much less.
  const Outcome numbers = eval(by + "kind");
  ASSERT_TRUE(ends(numbers, 0, {}));
  EXPECT_LT(numbers.output.find("exact match, kind = 2:"), numbers.output.find("exact match, kind = 10:"));
  EXPECT_EQ(lines_of(numbers.output, "exact match: ").front().find("kind"), std::string::npos);
  EXPECT_TRUE(ends(eval(by + "colour"), 2,
                   {"evaluation.group_by: a field of the annotations of images in evaluation.data expected (held_out, "
                    "kind); got \"colour\""}));
  EXPECT_TRUE(ends(eval("--set evaluation.group_by=held_out"), 2, {"expected (they have none); got \"held_out\""}));
  write_shards("bad", {"a", "b"}, {R"({"held_out":true})", "[1]"});
  EXPECT_TRUE(ends(eval(on_shards("bad") + "--set evaluation.group_by=held_out"), 3,
                   {"evaluation.group_by: annotations of every image must be a JSON object; got [1] ["}));
}

TEST_F(Eval, SaysExactMatchInOneLine) {
  const Outcome plain = eval("");
  ASSERT_TRUE(ends(plain, 0, {}));
  EXPECT_EQ(lines_of(plain.output, "exact match: "), std::vector<std::string>{"exact match: 0.0 %"});
  EXPECT_EQ(lines_of(eval("--metrics cider").output, "exact match").size(), 0u);
  EXPECT_EQ(lines_of(eval("--json").output, "exact match: ").size(), 0u);
}

TEST_F(Eval, ShowsTheFirstImagesWithTheirTexts) {
  const std::vector<std::string> captions = half_right_captions();
  write_shards("shards", captions, std::vector<std::string>(12));
  const std::string png = (folder_ / "sheet.png").string();
  const Outcome outcome =
      eval(on_shards("shards") + "--samples 2 --sheet-count 7 --sheet " + png + " --out " + (folder_ / "out").string());
  ASSERT_TRUE(ends(outcome, 0, {}));
  const auto texts = texts_in(folder_ / "out" / "results.json");
  EXPECT_EQ(lines_of(outcome.output, "(expected "),
            (std::vector<std::string>{concat("0: ", texts[0], " (expected ", captions[0], ')'),
                                      concat("1: ", texts[1], " (expected ", captions[1], ')')}));
  std::vector<SheetEntry> entries;
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < 7; ++i) {
    SheetEntry& entry = entries.emplace_back();
    decode_image_file(image(static_cast<int>(i)), {}, bytes, entry.image);
    entry.caption = texts[i];
    entry.expected = captions[i];
    entry.correct = i % 2 == 1;
  }
  Image sheet;
  decode_image_file(png, {}, bytes, sheet);
  EXPECT_EQ(sheet.pixels, draw_sheet(entries, 6).pixels);
  EXPECT_EQ(lines_of(eval("--samples 0").output, "(expected ").size(), 0u);
}

TEST_F(Eval, ShowsQuestionsBeforeAnswers) {
  const Outcome outcome = eval(about_questions() + " --samples 3 --sheet " + (folder_ / "sheet.png").string());
  ASSERT_TRUE(ends(outcome, 0, {": what is in the picture, and where is it? ", ": what is left? "}));
  const auto lines = lines_of(outcome.output, "(expected a red circle)");
  EXPECT_EQ(lines.size(), 3u);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "sheet.png"));
}

TEST_F(Eval, NamesWhatIsWrongWithSheetsAndSamples) {
  const std::string png = (folder_ / "sheet.png").string();
  for (const char* count : {"0", "-1", "1001", "x"})
    EXPECT_TRUE(ends(eval("--sheet " + png + " --sheet-count " + count), 2, {"--sheet-count"})) << count;
  EXPECT_TRUE(ends(eval("--sheet-count 3"), 2, {"--sheet-count requires --sheet"}));
  EXPECT_TRUE(ends(eval("--samples -1"), 2, {"--samples"}));
  EXPECT_TRUE(ends(eval("--samples 2 --json"), 2, {"--samples prints lines, and --json prints JSON alone; got both"}));
  EXPECT_TRUE(ends(eval("--sheet " + (folder_ / "none" / "sheet.png").string()), 4,
                   {"eval: the file of --sheet must be in a folder that is there; got ", "none/sheet.png"}));
  std::filesystem::create_directories(folder_ / "taken.png" / "in");
  EXPECT_TRUE(ends(eval("--sheet " + (folder_ / "taken.png").string()), 4, {"taken.png"}));
  for (const std::string option : {"--sheet x.png", "--samples 2", "--adapter x", "--out x"})
    EXPECT_TRUE(ends(run("eval --results a.json --annotations b.json " + option), 2,
                     {"eval: " + option.substr(0, option.find(' ')) + " is for a CONFIG; got it with --results"}));
}

/// Two parts of a mix with the same ids for other questions, against ids of their own. (The model is one of random
/// weights, which says something else to each question.)
TEST_F(Eval, ScoresEachTextOfAMixByWhatItsOwnPartSays) {
  const std::vector<std::string> asked{"is it red?", "what is left?"};
  std::vector<std::string> said(2, "nothing");
  const auto write_part = [&](const std::string& name, std::vector<size_t> ids, std::vector<size_t> which) {
    Json part = Json::array();
    for (size_t i = 0; i < 2; ++i)
      part.push_back({{"question_id", ids[i]},
                      {"img_id", "000000"},
                      {"sent", asked[which[i]]},
                      {"label", {{said[which[i]], 1.0}}}});
    write_file(photos() / name, json_text(part));
  };
  const auto eval_mix = [&](const std::string& second, const std::string& more) {
    write_part("first.json", {0, 1}, {0, 1});
    write_part("same_ids.json", {0, 1}, {1, 0});
    write_part("other_ids.json", {2, 3}, {1, 0});
    return run("eval " + model() + settings() + about_questions() +
               " --set 'evaluation.data.mix+={data {questions: \"first.json\"}}'"
               " --set 'evaluation.data.mix+={data {questions: \"" +
               second + "\"}}' --json " + more);
  };
  const std::string out = (folder_ / "out").string(), with_out = "--out " + out;
  ASSERT_TRUE(ends(eval_mix("other_ids.json", with_out), 0, {}));
  const Json answers = parse_json(read_file(folder_ / "out" / "results.json"));
  ASSERT_EQ(answers.size(), 4u);
  said = {answers[0]["answer"], answers[1]["answer"]};
  ASSERT_NE(said[0], said[1]);
  EXPECT_EQ(answers[3]["answer"], said[0]);
  const Outcome apart = eval_mix("other_ids.json", ""), shared = eval_mix("same_ids.json", "");
  ASSERT_TRUE(ends(apart, 0, {"\"exact_match\": 1.0"}));
  ASSERT_TRUE(ends(shared, 0, {"\"texts\": 4", "\"scored\": 4", "\"exact_match\": 1.0"}));
  const auto scores = [](const Outcome& outcome) {
    return parse_json(outcome.output.substr(outcome.output.find('{')))["evaluation"]["scores"];
  };
  EXPECT_EQ(scores(shared), scores(apart));
  // A result file could not say which text is whose: said before any text is generated.
  write_file(image(), "no image any more");
  EXPECT_TRUE(ends(eval_mix("same_ids.json", with_out), 3, {"eval: --out needs one id for each text; got id 0 twice"}));
  const std::string all = "--set 'evaluation.data.mix+={weight: 1}' ";
  EXPECT_TRUE(ends(eval(all + all + with_out), 3, {"eval: --out needs one id for each text; got id 0 twice"}));
}

TEST_F(Eval, SaysWhatCannotBeScoredBeforeItGenerates) {
  write_vqav2(std::vector<std::string>(6, "red"));
  for (int i = 0; i < 12; ++i) write_file(image(i), "no image any more");
  EXPECT_TRUE(ends(eval("--metrics vqa_accuracy"), 2, {"evaluation: the data have the metrics bleu_1"}));
  EXPECT_TRUE(
      ends(eval(on_vqav2() + "--metrics cider"), 2,
           {"evaluation: the data have the metrics vqa_accuracy, soft_label, normalized_exact_match, exact_match; "
            "got --metrics cider"}));
  EXPECT_TRUE(ends(eval(on_vqav2() + "--metrics vqa_accuracy"), 3, {"000000.jpg"}));
  // Good enough for a dataset, and no annotations.
  Json file = parse_json(read_file(photos() / "vqav2_annotations.json"));
  file["annotations"][0]["question_type"] = 7;
  write_file(photos() / "vqav2_annotations.json", json_text(file));
  EXPECT_TRUE(ends(eval(on_vqav2()), 3, {"annotations: ", "question_type", "vqav2_annotations.json"}));
}

/// Official scores are those of a file that answers all; the evaluator's own are of what is answered.
TEST_F(Eval, ScoresWhatIsAnswered) {
  Json questions = parse_json(read_file(photos() / "questions.json"));
  questions[6].erase("label");
  write_file(photos() / "questions.json", json_text(questions));
  const Outcome outcome = eval(about_questions() + " --out " + (folder_ / "out").string());
  ASSERT_TRUE(
      ends(outcome, 0,
           {"7 questions", "soft label", "official scores: none, since the file does not answer all questions"}));
  const Json scores = parse_json(read_file(folder_ / "out" / "scores.json"))["evaluation"];
  EXPECT_EQ(scores["texts"], 7);
  EXPECT_EQ(scores["scored"], 6);
  for (Json& question : questions) question.erase("label");
  write_file(photos() / "questions.json", json_text(questions));
  EXPECT_TRUE(ends(eval(about_questions()), 0, {"no answers in the data, so no scores"}));
}

TEST_F(Eval, AnImageThatCannotBeUsedEndsItOrIsLeftOut) {
  write_file(image(3), "no image any more");
  EXPECT_TRUE(ends(eval(""), 3, {"000003.png"}));
  EXPECT_TRUE(ends(eval("--set evaluation.data.image_policy=SKIP"), 0, {"11 images, 1 left out"}));
}

TEST_F(Eval, NamesWhatIsWrong) {
  EXPECT_TRUE(ends(eval("--split val"), 2, {"--split and --partial are for --results"}));
  EXPECT_TRUE(ends(eval("--set evaluation.decoding.length_penalty=nan"), 2,
                   {"evaluation.decoding.length_penalty: expected a finite number; got nan"}));
  EXPECT_TRUE(ends(eval("--set evaluation.data.captions=none.json"), 3, {"none.json"}));
  EXPECT_TRUE(ends(eval("--set evaluation.samples=1 --set evaluation.exchanged_images=true"), 3,
                   {"exchanged images need samples of at least two images; got 1"}));
}

}  // namespace
}  // namespace permafrost
