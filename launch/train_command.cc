#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "configs/json.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/json.h"
#include "core/device/cpu_features.h"
#include "core/weights/atomic_file.h"
#include "launch/commands.h"
#include "launch/evaluation/generated_measure.h"
#include "launch/machine.h"
#include "launch/metrics/event_file.h"
#include "launch/metrics/progress.h"
#include "launch/metrics/pss.h"
#include "launch/trace/run_trace.h"
#include "launch/training/agreement.h"
#include "launch/training/name_patterns.h"
#include "launch/training/trainer.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

std::atomic<int> stop_signal{0};
void note_signal(int signal) { stop_signal.store(signal); }

/// A second signal of the same kind ends the program the hard way.
void watch_signals() {
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file size becomes an error of write, which names the file
}

[[noreturn]] void storage_error(const fs::path& path, const std::string& what, const std::error_code& error) {
  fail(ErrorKind::kStorage, "train: cannot ", what, " ", path.string(), ": ", error.message());
}

/// Makes the run directory, or accepts one to resume in. A directory with another run in it is left alone.
void prepare_run_dir(const fs::path& dir, bool resume) {
  std::error_code error;
  if (!resume &&
      (fs::exists(dir / "metrics.jsonl") || (fs::exists(dir / "checkpoints") && !fs::is_empty(dir / "checkpoints"))))
    fail(ErrorKind::kStorage, "train: --run-dir must be new or empty; got ", dir.string(),
         ", which holds a run. Continue it with --resume, or name another folder");
  fs::create_directories(dir / "checkpoints", error);
  if (error) storage_error(dir, "make the run directory", error);
  if (access(dir.c_str(), W_OK) != 0) storage_error(dir, "write to", std::error_code(errno, std::generic_category()));
}

int terminal_columns() {
  winsize size = {};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// What rank 0 writes about a run: files, progress, summary.
class RunLog {
 public:
  RunLog(const fs::path& dir, const config::Resolved& resolved, const Plan& plan, const Trainer& trainer, bool terminal)
      : dir_(dir),
        plan_(plan),
        init_from_(resolved.config.weights().adapter()),
        metrics_(dir / "metrics.jsonl", trainer.step()),
        steps_(read_steps(dir / "metrics.jsonl")),
        progress_(std::cout, {trainer.step(), resolved.config.train().max_steps(),
                              resolved.config.logging().every_steps(), terminal, terminal_columns()}) {
    if (resolved.config.logging().tensorboard()) events_.emplace(dir, wall_time_s());
    write_file_atomically((dir / "config.textproto").string(), resolved.text);
    write_file_atomically((dir / "config.json").string(), config::to_json(resolved.config));
    write_file_atomically((dir / "plan.txt").string(), plan.table());
    write_file_atomically((dir / "plan.json").string(), plan.json() + "\n");
  }

  void step(StepMetrics metrics, double elapsed_s) {
    metrics.pss_bytes = pss_bytes();
    metrics_.write(metrics);
    if (events_) events_->write(metrics.step, wall_time_s(), scalars(metrics));
    progress_.step(metrics, elapsed_s);
    steps_.push_back(metrics);
  }

  void validation(const ValidationMetrics& metrics) {
    metrics_.write(metrics);
    if (events_) events_->write(metrics.step, wall_time_s(), scalars(metrics));
    std::ostringstream line;
    line << "validation after step " << metrics.step + 1 << ": " << metrics.metric << ' ' << std::setprecision(5)
         << metrics.value << " on " << metrics.samples << " samples, ";
    if (metrics.best)
      line << "the best so far";
    else
      line << "best " << metrics.best_value << " after step " << metrics.best_step;
    say(line.str());
  }

  void say(const std::string& line) {
    progress_.end_line();
    std::cout << line << std::endl;
  }

  void summary(const Trainer& trainer, const std::optional<FinalLoss>& final_loss, bool frozen_unchanged,
               const CheckpointStore& store, bool stopped_early) {
    progress_.end_line();
    OrderedJson j;
    j["plan_hash"] = plan_.hash();
    if (!init_from_.empty()) j["init_from"] = init_from_;
    j["adapter_sha256"] = trainer.adapter_sha256();
    j["frozen_sha256"] = trainer.frozen_sha256();
    j["frozen_unchanged"] = frozen_unchanged;
    j["parameters"] = {{"total", plan_.total_params}, {"trainable", plan_.trainable_params}};
    j["forecast_bytes"] = plan_.memory.total();
    if (!steps_.empty()) add_steps(j);
    j["skipped_samples"] = trainer.skipped_samples();
    if (trainer.best()) add_best(j, *trainer.best(), store, stopped_early);
    if (final_loss) {
      j["final_nats_per_token"] = final_loss->nats_per_token;
      if (final_loss->exchanged) j["final_nats_per_token_exchanged_images"] = *final_loss->exchanged;
      j["final_samples"] = final_loss->samples;
    }
    write_file_atomically((dir_ / "summary.json").string(), json_text(j, 1) + "\n");
    std::cout << "\nsummary of " << dir_.string() << '\n';
    for (const auto& [key, value] : j.items()) std::cout << "  " << key << ": " << json_text(value) << '\n';
    std::cout << "checkpoints: " << (dir_ / "checkpoints").string() << std::endl;
  }

 private:
  /// The folder may be of another step when settings changed on the way: then it is not named.
  static void add_best(OrderedJson& j, const BestSoFar& best, const CheckpointStore& store, bool stopped_early) {
    j["best_metric"] = best.metric;
    j["best_value"] = best.value;
    j["best_step"] = best.step;
    if (store.step_of_best() == best.step) j["best_checkpoint"] = store.path_of_best();
    j["stopped_early"] = stopped_early;
  }

  void add_steps(OrderedJson& j) const {
    std::vector<double> rates;
    double wait = 0, time = 0, communication = 0;
    int64_t pss = 0;
    for (size_t i = 0; i < steps_.size(); ++i) {
      pss = std::max(pss, steps_[i].pss_bytes);
      if (i == 0 && steps_.size() > 1) continue;  // also pays for first touches and for measuring exponents
      rates.push_back(steps_[i].samples_per_s);
      wait += steps_[i].wait_ms;
      time += steps_[i].step_ms;
      communication += steps_[i].exposed_comm_ms;
    }
    std::ranges::sort(rates);
    j["steps"] = steps_.back().step + 1;
    j["first_loss"] = steps_.front().loss;
    j["last_loss"] = steps_.back().loss;
    j["median_samples_per_s"] = rates[rates.size() / 2];
    j["wait_share"] = wait / time;
    j["exposed_comm_share"] = communication / time;
    j["largest_pss_bytes"] = pss;
  }

  fs::path dir_;
  const Plan& plan_;
  std::string init_from_;
  MetricsFile metrics_;
  std::vector<StepMetrics> steps_;  // also those of the run that is continued
  Progress progress_;
  std::optional<EventFile> events_;
};

void say_start(const config::Resolved& resolved, const Plan& plan, const Trainer& trainer) {
  if (resolved.config.precision().compute() == config::Compute::AUTO && plan.compute == DType::kF32)
    std::cout << "precision: this processor has no bf16 instructions (" << to_string(cpu_features())
              << "); computing in f32\n";
  for (const std::string& line : trainer.notes()) std::cout << line << '\n';
  std::cout << "data: " << trainer.data().texts.size() << " samples, " << trainer.data().dataset->images() << " images";
  if (trainer.data().texts.skipped() > 0)
    std::cout << ", " << trainer.data().texts.skipped() << " texts too long left out";
  if (trainer.data().texts.truncated() > 0) std::cout << ", " << trainer.data().texts.truncated() << " texts cut";
  std::cout << "\nplan: " << plan.trainable_params << " of " << plan.total_params << " parameters train, "
            << plan.world.ranks << " ranks x " << plan.world.threads << " threads, " << to_string(plan.compute) << ", "
            << static_cast<double>(plan.memory.total() >> 10) / 1024.0 << " MiB per rank forecast\n";
  if (trainer.step() > 0) std::cout << "resumed at step " << trainer.step() << '\n';
  std::cout << std::flush;
}

/// The checkpoint that rank 0 sees as the latest; every rank must have it.
std::optional<std::string> agreed_checkpoint(const CheckpointStore& store, const fs::path& dir, Runtime& runtime) {
  const std::optional<std::string> latest = store.latest();
  int64_t mine = runtime.first() && latest ? std::stoll(fs::path(*latest).filename().string().substr(5)) : -1,
          step = -1;
  runtime.world
      .all_reduce(flat(std::span(&mine, 1)), flat(std::span(&step, 1)), ReduceOp::kMax, StreamView::caller(), "resume")
      .wait();
  if (step < 0) return std::nullopt;
  const std::string path = store.path_of(step);
  if (!fs::exists(fs::path(path) / "position.json"))
    fail(ErrorKind::kStorage, "resume: rank 0 resumes from ", path, ", which rank ", runtime.rank(), " cannot see; is ",
         dir.string(), " on a file system that all ranks share?");
  return path;
}

void validate(Trainer& trainer, const CheckpointStore& store, RunLog* log) {
  const ValidationMetrics metrics = trainer.validate();
  if (metrics.best) trainer.save_best(store);
  if (log) log->validation(metrics);
}

bool has_ended(const config::Config& config, const Trainer& trainer) {
  return trainer.step() >= config.train().max_steps() || trainer.stop_voted() || trainer.out_of_patience();
}

void say_of_trace(const std::optional<std::string>& line, RunLog* log) {
  if (line && log) log->say(*line);
}

void run_steps(const config::Config& config, Trainer& trainer, const CheckpointStore& store, RunTrace& trace,
               RunLog* log) {
  const auto begin = std::chrono::steady_clock::now();
  const int64_t every = config.checkpoint().every_steps();
  if (trainer.validation_due()) {  // the run was stopped before it could
    validate(trainer, store, log);
    trainer.save(store);
  }
  while (!has_ended(config, trainer)) {
    say_of_trace(trace.before_step(trainer.step()), log);
    const StepMetrics metrics = trainer.train_step(stop_signal.load() != 0);
    const auto changes = trainer.check_changes(metrics);
    if (log) {
      log->step(metrics, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      if (changes) log->say(*changes);
    }
    // Before the checkpoint, which remembers what was found. Who asks to stop may not wait for it: then the run that
    // goes on from there begins with it, so that it validates as often as one that was never stopped.
    const bool stopping = trainer.stop_voted() && trainer.step() < config.train().max_steps();
    if (!stopping && trainer.validation_due()) validate(trainer, store, log);
    if (has_ended(config, trainer) || (every > 0 && trainer.step() % every == 0)) trainer.save(store);
  }
  say_of_trace(trace.finish(), log);
}

/// weights.adapter of the run in `dir`, by what it recorded; none where it has not recorded anything.
std::optional<std::string> beginning_of(const fs::path& dir) {
  const fs::path before = dir / "config.textproto";
  if (!fs::exists(before)) return std::nullopt;
  return config::load_config(before.string()).config.weights().adapter();
}

/// What a run that goes on from its checkpoint records: itself, and where it began, whatever was named this time.
config::Resolved with_beginning_of(const fs::path& dir, const config::Resolved& resolved) {
  const std::optional<std::string> began = beginning_of(dir);
  if (!began || *began == resolved.config.weights().adapter()) return resolved;
  return config::resolve_config(resolved.text, "config", {"weights.adapter=" + *began});
}

/// A run that was stopped before its first checkpoint starts over from where it began, or not at all.
void require_same_beginning(const config::Config& config, const fs::path& dir) {
  const std::string began = beginning_of(dir).value_or("");
  if (began.empty() || began == config.weights().adapter()) return;
  fail(ErrorKind::kConfig, "resume: ", dir.string(),
       " has no complete checkpoint, so the run starts over, which began from weights.adapter = ", began, "; got ",
       config.weights().adapter().empty() ? "none" : config.weights().adapter(), "; say --set weights.adapter=", began,
       " besides --resume");
}

/// What follows the last step: the final check, the summary, and whether what was frozen still is what it was.
void finish(const config::Config& config, Trainer& trainer, const CheckpointStore& store, RunLog* log, bool& stopped) {
  const bool early = trainer.out_of_patience() && trainer.step() < config.train().max_steps();
  stopped = trainer.stop_voted() && !early && trainer.step() < config.train().max_steps();
  if (early && log)
    log->say(concat("stopped early after step ", trainer.step(), ": ", trainer.best()->without_better,
                    " validations without a better ", trainer.best()->metric, " than ", trainer.best()->value,
                    " after step ", trainer.best()->step, " (validation.patience)"));
  std::optional<FinalLoss> final_loss;
  if (!stopped && config.train().final_check().loss())
    final_loss =
        trainer.measure_loss(config.train().final_check().exchanged_images(), config.train().final_check().samples());
  const std::vector<std::string> changed = trainer.changed_frozen_units();
  if (log) log->summary(trainer, final_loss, changed.empty(), store, early);
  if (!changed.empty())
    fail(ErrorKind::kInternal, "train: frozen weights changed during the run, those of ", changed.size(),
         " units, the first of them ", changed.front(), "; SHA-256 at the start ", trainer.frozen_sha256());
}

TraceOptions trace_options(const TrainOptions& options) {
  return {.who = "train", .file = options.trace, .steps = options.trace_steps};
}

void train_steps(const TrainOptions& options, const config::Resolved& resolved, Runtime& runtime, const Plan& plan,
                 Trainer& trainer, std::optional<RunTrace>& trace, bool& stopped) {
  const config::Config& config = resolved.config;
  const fs::path dir = options.run_dir;
  const CheckpointStore store((dir / "checkpoints").string(), config.checkpoint().keep());
  runtime.world.barrier(StreamView::caller(), "run directory").wait();
  bool resumed = false;
  if (options.resume) {
    if (const auto latest = agreed_checkpoint(store, dir, runtime)) {
      trainer.resume(*latest);
      resumed = true;
    } else if (runtime.first()) {
      require_same_beginning(config, dir);
      std::cout << "resume: no complete checkpoint in " << dir.string() << ", starting from the beginning\n";
    }
  }
  std::optional<RunLog> log;
  if (runtime.first()) {
    say_start(resolved, plan, trainer);
    // Launchers give ranks a terminal of their own whatever becomes of their output, so several ranks write plain
    // lines.
    log.emplace(dir, resumed ? with_beginning_of(dir, resolved) : resolved, plan, trainer,
                runtime.size() == 1 && isatty(STDOUT_FILENO) != 0);
  }
  trace.emplace(trace_options(options), config, plan, runtime, trainer.step(), config.train().max_steps());
  trace->attach(trainer);
  trace->keep_when_failing([&] { run_steps(config, trainer, store, *trace, log ? &*log : nullptr); });
  finish(config, trainer, store, log ? &*log : nullptr, stopped);
}

void train_rank(const TrainOptions& options, const config::Resolved& resolved, Runtime& runtime, bool& stopped) {
  const Plan plan = agreed_plan(resolved.config, runtime);
  if (runtime.first()) prepare_run_dir(options.run_dir, options.resume);
  if (runtime.first() && !options.trace.empty()) require_writable_trace("train", options.trace);
  std::optional<RunTrace> trace;  // outlives what it sees
  Trainer trainer(resolved.config, runtime, plan);
  // The trainer's communication thread may be waiting for the others.
  tell_before_unwinding(runtime.world, [&] {
    if (auto measure = make_generated_measure(resolved.config, runtime, trainer))
      trainer.validate_by(std::move(measure));
    train_steps(options, resolved, runtime, plan, trainer, trace, stopped);
  });
}

/// The configuration of a run; --init-from is recorded in it as weights.adapter.
config::Resolved load_run_config(const TrainOptions& options) {
  std::vector<std::string> overrides = options.config.overrides;
  if (options.init_from.empty()) return config::load_config(options.config.path, overrides, check_name_patterns);
  if (options.resume)
    fail(ErrorKind::kConfig,
         "train: expected one of --resume (goes on where a run stopped) and --init-from (a new run from trained "
         "parameters); got both");
  const config::Resolved without = config::load_config(options.config.path, overrides, check_name_patterns);
  if (!without.config.weights().adapter().empty())
    fail(ErrorKind::kConfig, "train: expected one of --init-from and weights.adapter; got both, ", options.init_from,
         " and ", without.config.weights().adapter());
  overrides.push_back("weights.adapter=" + adapter_file(options.init_from));
  return config::load_config(options.config.path, overrides, check_name_patterns);
}

}  // namespace

int run_train(const TrainOptions& options, const Launcher& launcher) {
  const config::Resolved resolved = load_run_config(options);
  config::require_data(resolved.config);
  if (resolved.config.validation().every_steps() > 0) config::require_evaluation_data(resolved.config);
  check_trace_options(trace_options(options), resolved.config.train().max_steps());
  watch_signals();
  bool stopped = false;
  const int code = run_ranks(launcher, runtime_options(resolved.config.parallel()),
                             [&](Runtime& runtime) { train_rank(options, resolved, runtime, stopped); });
  return code == 0 && stopped ? exit_code(ErrorKind::kStopped) : code;
}

}  // namespace permafrost
