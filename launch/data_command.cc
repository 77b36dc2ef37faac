#include <iostream>

#include "configs/load.h"
#include "configs/validate.h"
#include "core/weights/safetensors.h"
#include "data/factory.h"
#include "data/loader/describe.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/sample_photos.h"

namespace permafrost {

int run_data_inspect(const DataInspectOptions& options) {
  const config::Resolved resolved = config::load_config(options.config.path, options.config.overrides);
  config::require_data(resolved.config);
  const OpenedData data(resolved.config, resolved.config.model().epalm().text().vocab(), usable_cores());
  if (options.index < 0 || options.index >= data.texts.size())
    fail(ErrorKind::kConfig, "data inspect: --index must be 0 to ", data.texts.size() - 1, "; got ", options.index);
  SampleDescription sample =
      describe_sample(data.dataset, data.texts, data.tokenizer, loader_config(resolved.config, data.texts.size()),
                      options.epoch, options.index);
  std::cout << "sample " << sample.id << "\nimage " << sample.image_file.string() << " (" << sample.image_width << " x "
            << sample.image_height << ")\ncaption " << sample.caption << "\ntext " << sample.text << "\nids";
  for (int32_t id : sample.ids) std::cout << ' ' << id;
  std::cout << '\n';
  if (options.out.empty()) return 0;
  const int64_t size = resolved.config.model().epalm().vision().image_size();
  std::vector<int64_t> ids(sample.ids.begin(), sample.ids.end());
  const TensorSpec pixels{{3, size, size}, DType::kF32}, tokens{{static_cast<int64_t>(ids.size())}, DType::kI64};
  SafetensorsWriter writer(options.out, {{"input_ids", tokens}, {"pixels", pixels}},
                           {{"text", sample.text},
                            {"caption", sample.caption},
                            {"image", sample.image_file.string()},
                            {"id", std::to_string(sample.id)}});
  writer.write_tensor("input_ids", Tensor(ids.data(), tokens));
  writer.write_tensor("pixels", Tensor(sample.pixels.data(), pixels));
  writer.finish();
  return 0;
}

int run_sample_photos(const SamplePhotosOptions& options) {
  write_sample_photos(options.folder, options.count, options.size_pixels, options.seed);
  write_byte_tokenizer(std::filesystem::path(options.folder) / "tokenizer");
  return 0;
}

int run_byte_tokenizer(const ByteTokenizerOptions& options) {
  write_byte_tokenizer(options.folder);
  return 0;
}

}  // namespace permafrost
