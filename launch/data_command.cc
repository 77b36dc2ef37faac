#include <iostream>

#include "configs/load.h"
#include "configs/validate.h"
#include "core/weights/safetensors.h"
#include "data/factory.h"
#include "data/loader/describe.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/sample_photos.h"
#include "models/factory.h"

namespace permafrost {

int run_data_inspect(const DataInspectOptions& options) {
  const config::Resolved resolved = config::load_config(options.config.path, options.config.overrides);
  config::require_data(resolved.config);
  OpenOptions open = training_options(resolved.config, make_model(resolved.config)->vocab(), usable_cores());
  open.needs_answers = false;
  const OpenedData data(resolved.config.data(), open);
  if (options.index < 0 || options.index >= data.texts.size())
    fail(ErrorKind::kConfig, "data inspect: --index must be 0 to ", data.texts.size() - 1, "; got ", options.index);
  SampleDescription sample = describe_sample(*data.dataset, data.texts, data.tokenizer.get(),
                                             loader_config(resolved.config, data), options.epoch, options.index);
  std::cout << "sample " << sample.name << '\n';
  if (!sample.image.empty())
    std::cout << "image " << sample.image << " (" << sample.image_width << " x " << sample.image_height << ")\n";
  if (!sample.caption.empty()) std::cout << "caption " << sample.caption << '\n';
  if (!sample.question.empty()) std::cout << "question " << sample.question << '\n';
  for (const auto& [answer, score] : sample.answers) std::cout << "answer " << answer << " (" << score << ")\n";
  if (!sample.classes.empty()) {
    std::cout << "classes";
    for (int32_t label : sample.classes) std::cout << ' ' << label;
    std::cout << '\n';
  }
  std::cout << "text " << sample.text << "\nids";
  for (int32_t id : sample.ids) std::cout << ' ' << id;
  std::cout << '\n';
  if (options.out.empty()) return 0;
  const int64_t size = image_size(resolved.config);
  std::vector<int64_t> ids(sample.ids.begin(), sample.ids.end());
  const TensorSpec pixels{{3, size, size}, DType::kF32}, tokens{{static_cast<int64_t>(ids.size())}, DType::kI64};
  std::vector<TensorDeclaration> tensors{{"input_ids", tokens}};
  if (size > 0) tensors.push_back({"pixels", pixels});
  SafetensorsWriter writer(options.out, tensors,
                           {{"text", sample.text},
                            {"caption", sample.caption},
                            {"question", sample.question},
                            {"image", sample.image},
                            {"id", sample.name}});
  writer.write_tensor("input_ids", Tensor(ids.data(), tokens));
  if (size > 0) writer.write_tensor("pixels", Tensor(sample.pixels.data(), pixels));
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
