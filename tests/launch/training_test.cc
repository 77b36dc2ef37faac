// Training as users meet it: runs, resuming, and what keeps a run from going on.
#include <cstring>
#include <map>

#include "launch/metrics/event.pb.h"
#include "launch/metrics/event_file.h"
#include "launch/metrics/jsonl.h"
#include "tests/launch/training_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

TEST_F(Training, WritesWhatItSays) {
  EXPECT_TRUE(ends(
      train(), 0,
      {"vision: RANDOM weights from seed 42", "step 4/4", "summary of", "adapter_sha256", "frozen_unchanged: true"}));
  for (const char* file : {"config.textproto", "config.json", "plan.txt", "plan.json", "metrics.jsonl", "summary.json"})
    EXPECT_TRUE(fs::exists(dir() / file)) << file;
  std::ifstream metrics(dir() / "metrics.jsonl");
  int lines = 0;
  for (std::string line; std::getline(metrics, line); ++lines) {
    const auto j = parse_json(line);
    for (const char* key :
         {"step", "loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "step_ms", "wait_ms", "exposed_comm_ms",
          "gathered_bytes", "reduced_bytes", "moved_bytes", "arena_bytes", "pss_bytes"})
      EXPECT_TRUE(j.contains(key)) << key;
    EXPECT_EQ(j["step"], lines);
  }
  EXPECT_EQ(lines, 4);
  const auto summary = parse_json(read_file(dir() / "summary.json"));
  EXPECT_EQ(summary["adapter_sha256"], adapter_hash("run"));
}

TEST_F(Training, ResumesBitForBit) { expect_resumes_bit_for_bit(""); }
TEST_F(Training, KeepsThePreviousCheckpointWhenTheDiskIsFull) { expect_keeps_the_previous_checkpoint(""); }
TEST_F(Training, NamesTheFirstValueThatIsNotFinite) { expect_names_the_first_value_that_is_not_finite(""); }

/// The events that TensorBoard would read from the run's folder.
std::vector<tensorboard::Event> events_of(const fs::path& folder) {
  std::string bytes;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) bytes += read_file(entry.path());
  std::vector<tensorboard::Event> events;
  for (size_t at = 0; at < bytes.size();) {  // length (8), its checksum (4), data, its checksum (4)
    uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    const std::string data = bytes.substr(at + 12, length);
    EXPECT_EQ(frame_record(data), bytes.substr(at, 16 + length)) << "record at " << at;
    EXPECT_TRUE(events.emplace_back().ParseFromString(data)) << "record at " << at;
    at += 16 + length;
  }
  return events;
}

TEST_F(Training, TensorBoardSeesTheMetrics) {
  ASSERT_TRUE(ends(train("--set logging.tensorboard=true"), 0, {}));
  std::vector<StepMetrics> steps;
  std::ifstream metrics(dir() / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) steps.push_back(parse_json_line(line));
  ASSERT_EQ(steps.size(), 4u);
  const std::vector<tensorboard::Event> events = events_of(dir());
  ASSERT_EQ(events.size(), 1 + steps.size());
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  for (size_t i = 0; i < steps.size(); ++i) {
    const tensorboard::Event& event = events[i + 1];
    EXPECT_EQ(event.step(), steps[i].step);
    std::map<std::string, float> values;
    for (const auto& value : event.summary().value()) values[value.tag()] = value.simple_value();
    for (const auto& [tag, value] : std::map<std::string, double>{
             {"train/loss", steps[i].loss}, {"train/lr", steps[i].lr}, {"train/grad_norm", steps[i].grad_norm}}) {
      ASSERT_TRUE(values.contains(tag)) << tag;
      EXPECT_EQ(values[tag], static_cast<float>(value)) << tag;
    }
  }
}

TEST_F(Training, ResumesFromTheBeginningWhenNothingWasSaved) {
  fs::create_directories(dir() / "checkpoints");
  write_file(dir() / "metrics.jsonl", "{\"step\": 0, \"lo");
  EXPECT_TRUE(ends(train(), 4, {"--run-dir must be new or empty", "--resume"}));
  EXPECT_TRUE(ends(train("--resume"), 0, {"no complete checkpoint", "step 4/4"}));
}

TEST_F(Training, RefusesToResumeAnotherGraph) {
  ASSERT_EQ(train().code, 0);
  EXPECT_TRUE(ends(train("--resume --set model.epalm.connector=SHARED"), 3, {"belongs to another graph", "connector"}));
}

TEST_F(Training, RefusesToContinueWithOtherSettings) {
  ASSERT_EQ(train().code, 0);
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6 --set train.global_batch=4 --set data.seed=7"), 2,
                   {"train.global_batch: expected 8; got 4", "data.seed: expected 42; got 7"}));
  // A constant of an operation makes another graph too; the field says it better than the hash.
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6 --set loss.label_smoothing=0.1"), 2,
                   {"loss.label_smoothing: expected 0"}));
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6 --set parallel.threads=1 --set data.prefetch=1"), 0,
                   {"resumed at step 4"}));
}

TEST_F(Training, RefusesADamagedCheckpoint) {
  ASSERT_EQ(train().code, 0);
  const fs::path file = dir() / "checkpoints" / "step-00000004" / "optimizer.safetensors";
  std::string bytes = read_file(file);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 1);
  write_file(file, bytes);
  EXPECT_TRUE(
      ends(train("--resume --set train.max_steps=6"), 3, {"optimizer.safetensors is damaged", "expected SHA-256"}));
}

TEST_F(Training, RefusesRunDirectoriesItCannotWrite) {
  write_file(folder_ / "file", "not a folder");
  EXPECT_TRUE(ends(train("", "file/run"), 4, {"cannot make the run directory", "file/run"}));
}

TEST_F(Training, StopsOnASignalWithACheckpoint) {
  const std::string log = dir("log").string();
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  const std::string script = "bash -c '" + std::string(program) + " " + arguments("--set train.max_steps=100000") +
                             " > " + log + " 2>&1 & child=$!; for i in $(seq 200); do sleep 0.1; grep -q \"step 1/\" " +
                             log + " && break; done; kill -TERM $child; wait $child'";
  const int status = std::system(script.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 8) << read_file(log);
  EXPECT_FALSE(fs::is_empty(dir() / "checkpoints"));
}

}  // namespace
}  // namespace permafrost
