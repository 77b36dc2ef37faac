#include "launch/bench/step_control.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "launch/bench/quantile.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using std::chrono::milliseconds;

TEST(StepCommand, IsReadFromALine) {
  const StepCommand run = parse_step_command(" run  12 \r");
  EXPECT_EQ(run.kind, StepCommand::kRun);
  EXPECT_EQ(run.steps, 12);
  EXPECT_EQ(parse_step_command("memory").kind, StepCommand::kMemory);
  EXPECT_EQ(parse_step_command("checkpoint").kind, StepCommand::kCheckpoint);
  EXPECT_EQ(parse_step_command("quit").kind, StepCommand::kQuit);
}

TEST(StepCommand, OtherLinesAreRefusedWithWhatWasExpected) {
  for (const char* line : {"", "run", "run 0", "run -1", "run 1.5", "run 3 4", "run x", "run 99999999999999999999",
                           "RUN 1", "memory 1", "quit now", "checkpoint x"}) {
    try {
      parse_step_command(line);
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      EXPECT_EQ(std::string(error.what()),
                std::string("bench step: expected a line 'run N' (N steps, 1 and up), 'memory', 'checkpoint' or "
                            "'quit'; got '") +
                    line + "'");
    }
  }
}

/// Both ends of a pipe.
struct Pipe {
  Pipe() { EXPECT_EQ(pipe(ends.data()), 0); }
  ~Pipe() {
    close(ends[0]);
    end_input();
  }
  void write(const std::string& text) const {
    EXPECT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void end_input() {
    if (ends[1] >= 0) close(ends[1]);
    ends[1] = -1;
  }
  std::array<int, 2> ends{-1, -1};
};

TEST(LineReader, GivesWholeLinesInOrder) {
  Pipe pipe;
  LineReader lines(pipe.ends[0]);
  EXPECT_FALSE(lines.next(milliseconds(1)));
  EXPECT_FALSE(lines.at_end());
  pipe.write("run 1\nmem");
  EXPECT_EQ(lines.next(milliseconds(1000)), "run 1");
  EXPECT_FALSE(lines.next(milliseconds(1)));  // half a line
  EXPECT_FALSE(lines.at_end());
  pipe.write("ory\n\nquit");
  EXPECT_EQ(lines.next(milliseconds(1000)), "memory");
  EXPECT_EQ(lines.next(milliseconds(1000)), "");
  pipe.end_input();
  EXPECT_EQ(lines.next(milliseconds(1000)), "quit");
  EXPECT_FALSE(lines.next(milliseconds(1000)));
  EXPECT_TRUE(lines.at_end());
  EXPECT_FALSE(lines.next(milliseconds(1000)));
}

TEST(LineReader, SaysWhyItCannotRead) {
  LineReader lines(-1);
  EXPECT_FALSE(lines.next(milliseconds(1)));  // poll leaves it out
  int folder = open("/", O_RDONLY);
  LineReader of_folder(folder);
  try {
    of_folder.next(milliseconds(1000));
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kStorage);
    EXPECT_EQ(std::string(error.what()), "bench step: commands must be readable; got Is a directory");
  }
  close(folder);
}

TEST(Quantile, LiesBetweenNeighboursInProportion) {
  EXPECT_EQ(bench::quantile({}, 0.5), 0);
  EXPECT_EQ(bench::quantile({3}, 0.25), 3);
  EXPECT_EQ(bench::quantile({4, 1, 2, 3}, 0.5), 2.5);
  EXPECT_EQ(bench::quantile({5, 1, 2, 3, 4}, 0.25), 2);
  EXPECT_EQ(bench::quantile({1, 2}, 0.75), 1.75);
  EXPECT_EQ(bench::quantile({2, 1}, 1), 2);
}

}  // namespace
}  // namespace permafrost
