// permafrost generate and the model mode of permafrost eval, through the program.
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
                   {"adapter: no trained parameters were named"}));
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

TEST_F(Eval, ScoresAnswers) {
  const std::string out = (folder_ / "out").string();
  ASSERT_TRUE(ends(eval(about_questions() + " --out " + out), 0, {"7 questions", "soft label"}));
  const Json results = parse_json(read_file(folder_ / "out" / "results.json"));
  ASSERT_EQ(results.size(), 7u);
  EXPECT_EQ(results[0]["question_id"], 100);
  EXPECT_TRUE(results[0].contains("answer"));
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
