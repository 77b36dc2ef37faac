#include "launch/command.h"
#include "launch/sample_photos.h"

namespace permafrost {

namespace {

struct SampleOptions {
  std::string folder;
  int count = 96;
  int size_pixels = 64;
  uint64_t seed = 42;
};

void add_sample_photos(CommandLine& program, CLI::App& data) {
  CLI::App* command = data.add_subcommand(
      "sample-photos", "Generates small images of coloured shapes with captions in COCO's layout, and a byte tokenizer for them");
  auto options = std::make_shared<SampleOptions>();
  command->add_option("--out", options->folder, "Folder to write images/, captions.json and tokenizer/ to (no default)")
      ->required()
      ->type_name("FOLDER");
  command->add_option("--count", options->count, "Images")->capture_default_str()->check(CLI::Range(1, 100000));
  command->add_option("--size", options->size_pixels, "Width and height of an image in pixels")
      ->capture_default_str()
      ->check(CLI::Range(8, 4096));
  command->add_option("--seed", options->seed, "Of what is drawn; the same seed gives the same images")->capture_default_str();
  command->callback([&program, options] {
    program.action = [options] {
      write_sample_photos(options->folder, options->count, options->size_pixels, options->seed);
      write_byte_tokenizer(std::filesystem::path(options->folder) / "tokenizer");
      return 0;
    };
  });
}

void add_byte_tokenizer(CommandLine& program, CLI::App& data) {
  CLI::App* command = data.add_subcommand("byte-tokenizer", "Writes the vocabulary of a tokenizer over single bytes (260 tokens)");
  auto folder = std::make_shared<std::string>();
  command->add_option("--out", *folder, "Folder to write vocab.json and merges.txt to (no default)")->required()->type_name("FOLDER");
  command->callback([&program, folder] {
    program.action = [folder] {
      write_byte_tokenizer(*folder);
      return 0;
    };
  });
}

}  // namespace

void add_data_command(CommandLine& program) {
  CLI::App* data = program.app.add_subcommand("data", "Looks at datasets and makes small ones");
  data->require_subcommand(1);
  add_data_inspect(program, *data);
  add_sample_photos(program, *data);
  add_byte_tokenizer(program, *data);
}

}  // namespace permafrost
