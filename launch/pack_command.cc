#include <csignal>
#include <filesystem>
#include <iostream>

#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/check.h"
#include "data/factory.h"
#include "data/files/make_folder.h"
#include "data/shards/pack.h"
#include "launch/commands.h"
#include "launch/runtime.h"
#include "launch/training/agreement.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

/// Sums over ranks.
void sum_up(Group& world, std::span<int64_t> values) {
  std::vector<int64_t> sums(values.size());
  world.all_reduce(flat(values), flat(std::span(sums)), ReduceOp::kSum, StreamView::caller(), "packed shards").wait();
  std::ranges::copy(sums, values.begin());
}

/// Shards go round the ranks. Which rank writes one changes nothing in it.
void pack_on_rank(const DataPackOptions& options, const config::Data& data, Runtime& runtime) {
  OpenOptions open;
  open.needs_answers = false;
  open.whole = true;
  const auto tokenizer = open_tokenizer(data, 0);
  const auto dataset = open_dataset(data, open, tokenizer.get());
  const auto bytes = static_cast<int64_t>(options.shard_mb * 1e6);
  const PackPlan plan = plan_pack(*dataset, text_task(data), tokenizer.get(), bytes);
  require_agreement(runtime.world, "data", {{"what is packed (SHA-256)", plan.packed_from}}, ErrorKind::kData);
  const fs::path folder = options.out;
  if (runtime.first()) {
    make_folder(folder, "data pack");
    prepare_pack_folder(plan, folder);
    std::cout << "packing " << dataset->size() << " samples and " << plan.images.size() << " images of "
              << static_cast<double>(plan.image_bytes / 1000) / 1000.0 << " MB into " << plan.shards() << " shards"
              << std::endl;
  }
  runtime.world.barrier(StreamView::caller(), "folder of shards").wait();
  int64_t counts[] = {0, 0};  // written, kept
  for (int64_t shard = runtime.rank(); shard < plan.shards(); shard += runtime.size())
    ++counts[pack_shard(*dataset, plan, shard, folder) ? 0 : 1];
  sum_up(runtime.world, counts);
  if (runtime.first())
    std::cout << "packed into " << folder.string() << ": " << counts[0] << " shards written, " << counts[1]
              << " kept\ntrain from it with data.format=SHARDS data.shards=" << folder.string() << std::endl;
}

}  // namespace

int run_data_pack(const DataPackOptions& options, const Launcher& launcher) {
  const config::Resolved resolved = config::load_config(options.config.path, options.config.overrides);
  options.evaluation ? config::require_evaluation_data(resolved.config) : config::require_data(resolved.config);
  const config::Data& data = options.evaluation ? resolved.config.evaluation().data() : resolved.config.data();
  if (!data.mix().empty())
    fail(ErrorKind::kConfig, "data pack: one dataset by itself is expected; got ",
         options.evaluation ? "evaluation.data" : "data", ".mix with ", data.mix_size(),
         ". Pack each on its own and mix the folders");
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file size becomes an error of write, which names the file
  RuntimeOptions one_thread = runtime_options(resolved.config.parallel());
  one_thread.threads = 1;
  return run_ranks(launcher, one_thread, [&](Runtime& runtime) {
    tell_before_unwinding(runtime.world, [&] { pack_on_rank(options, data, runtime); });
  });
}

}  // namespace permafrost
