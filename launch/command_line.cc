// Every command with its options. Each option's description says its unit; capture_default_str() shows its default.
// This file and command_line_bench.cc alone include CLI11, which takes seconds to compile.
#include "launch/command_line.h"

#include <glog/logging.h>

#include <iostream>

#include "core/base/check.h"
#include "launch/command_line_parts.h"

namespace permafrost {

namespace {

void add_train(CommandLine& line, const Launcher& launcher) {
  CLI::App* command =
      line.app.add_subcommand("train", "Trains what is not frozen; alone or as one rank under mpirun or srun");
  auto options = std::make_shared<TrainOptions>();
  add_config_options(*command, options->config);
  command
      ->add_option("--run-dir", options->run_dir,
                   "Folder for configuration, plan, metrics, checkpoints and summary; made if need be (no default)")
      ->required()
      ->type_name("FOLDER");
  command->add_flag("--resume", options->resume,
                    "Continue from the latest complete checkpoint in --run-dir, bit for bit");
  command
      ->add_option("--init-from", options->init_from,
                   "Start a new run from trained parameters: an adapter file, or the folder of a checkpoint; the "
                   "optimizer starts afresh (default: none)")
      ->type_name("PATH");
  add_trace_options(*command, options->trace, options->trace_steps, "ten, from the third that the run does on");
  command->callback([=, &line] { line.action = [=] { return run_train(*options, launcher); }; });
}

void add_plan_forecast(CLI::App& command, PlanOptions& options) {
  command
      .add_option("--device", options.device,
                  "Plan for this GPU (h200, h100 or a100), which need not be there: parallel.device=CUDA, what fits in "
                  "its memory, and a forecast of the step's time in ms (default: none)")
      ->type_name("NAME");
  command
      .add_option("--ceilings", options.ceilings,
                  "With --device: JSON file with measured matmul_flops and copy_bytes_per_s, per second, instead of "
                  "the data sheet's (default: none)")
      ->type_name("FILE");
  command
      .add_option("--collectives", options.collectives,
                  "With --device: over what GPUs exchange, nccl (NVLink and network) or host (through the hosts' "
                  "memory)")
      ->capture_default_str();
  command
      .add_option("--nic-gbps", options.nic_gbps,
                  "With --device: Gb/s of the network card of each GPU; 0: 400, and 200 for a100")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e5));
  command
      .add_option("--launch-us", options.launch_us,
                  "With --device: microseconds of the host for each step of a program; 0: as with CUDA graphs")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  command.add_flag("--tf32", options.tf32, "With --device: products of f32 at the rate of TF32");
}

void add_plan(CommandLine& line) {
  CLI::App* command = line.app.add_subcommand("plan",
                                              "Prints what a step would do, per unit: classes, bytes, traffic, work. "
                                              "Needs no weights and no machine of that size");
  auto options = std::make_shared<PlanOptions>();
  add_config_options(*command, options->config);
  command->add_option("--ranks", options->ranks, "Ranks of the planned world")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--nodes", options->nodes, "Nodes they stand on, at most --ranks")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--threads", options->threads, "Compute threads per rank")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--cores-per-node", options->cores_per_node,
                   "Cores that the ranks of a node may use; 0: not known, none is taken for spare")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  command
      ->add_option("--node-memory", options->memory_gib,
                   "Memory of a node in GiB, by which frozen weights are sharded or not; 0: everything is taken to "
                   "fit, unless parallel.memory_limit_bytes is set")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  add_plan_forecast(*command, *options);
  command->add_flag("--json", options->json, "JSON instead of a table (keys: docs/plan.md)");
  command->callback([=, &line] { line.action = [=] { return run_plan(*options); }; });
}

void add_probe(CommandLine& line) {
  CLI::App* command = line.app.add_subcommand("probe",
                                              "Runs one forward pass (and backward pass) on a given batch and writes "
                                              "chosen values, to compare with other programs");
  auto options = std::make_shared<ProbeOptions>();
  add_config_options(*command, options->config);
  command
      ->add_option("--batch", options->batch,
                   "safetensors file with what the model reads: images [B,3,H,W] F32 (normalised); input_ids, "
                   "attention_mask, labels [B,T] I64, or labels [B,L] I64 of a classifier (no default)")
      ->type_name("FILE");
  command
      ->add_option("--values", options->values,
                   "Names of values, comma-separated, such as text.layers.0.out,logits,loss (no default)")
      ->delimiter(',')
      ->allow_extra_args(false)  // what follows may be the configuration
      ->type_name("NAMES");
  command->add_flag("--grads", options->grads,
                    "Run backward too; gradients are called grad: and the name of a value or parameter");
  command->add_option("--out", options->out, "safetensors file to write; floats become F32, the loss F64 (no default)")
      ->type_name("FILE");
  command->add_flag("--list", options->list, "Print all names with shapes instead");
  command->callback([=, &line] { line.action = [=] { return run_probe(*options); }; });
}

void add_adapter_option(CLI::App& command, std::string& adapter) {
  command
      .add_option("--adapter", adapter,
                  "With CONFIG: trained parameters, a .safetensors file or a checkpoint folder (default: "
                  "weights.adapter)")
      ->type_name("PATH");
}

void add_generate(CommandLine& line, const Launcher& launcher) {
  CLI::App* command =
      line.app.add_subcommand("generate", "Says what a model sees in photographs, or answers questions");
  auto options = std::make_shared<GenerateOptions>();
  add_config_options(*command, options->config);
  command
      ->add_option(
          "--image", options->image,
          "A JPEG or PNG file, a folder of them, or a .txt file with one file per line, which may be followed by "
          "a tab and a question (no default)")
      ->required()
      ->type_name("PATH");
  command
      ->add_option("--question", options->question,
                   "Asked of every image that has no question of its own, as written in the dataset (no default)")
      ->type_name("TEXT");
  add_adapter_option(*command, options->adapter);
  command
      ->add_option("--json", options->json,
                   "Also write images, questions, texts, token ids and scores to this file (keys: docs/decoding.md; "
                   "default: none)")
      ->type_name("FILE");
  command->callback([=, &line] { line.action = [=] { return run_generate(*options, launcher); }; });
}

void add_eval(CommandLine& line, const Launcher& launcher) {
  CLI::App* command = line.app.add_subcommand(
      "eval", "Scores captions and answers: of a model (CONFIG), or of files (--results, --annotations)");
  auto options = std::make_shared<EvalOptions>();
  add_config_options(*command, options->config, /*required=*/false);
  command
      ->add_option(
          "--results", options->results,
          "What a model said: COCO captions [{image_id, caption}] or answers [{question_id, answer}] (no default)")
      ->type_name("FILE");
  command
      ->add_option("--annotations", options->annotations,
                   "What would have been right: COCO or Karpathy captions, VQA, A-OKVQA, GQA or VL-T5 (no default)")
      ->type_name("FILE");
  command
      ->add_option("--split", options->split,
                   "Of a Karpathy file: train (with restval), val or test (default: all images with a result)")
      ->type_name("NAME");
  command
      ->add_option("--metrics", options->metrics,
                   "Only these, comma-separated, such as bleu_4,cider (default: all that the annotations allow)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAMES");
  command->add_flag("--partial", options->partial,
                    "Score the questions that have an answer, instead of refusing results that leave some out");
  add_adapter_option(*command, options->adapter);
  command
      ->add_option("--out", options->out,
                   "With CONFIG: folder for results.json, in the format of --results, and scores.json (default: none)")
      ->type_name("FOLDER");
  CLI::Option* sheet = command
                           ->add_option("--sheet", options->sheet,
                                        "With CONFIG: PNG file of the first images with what the model said of each, "
                                        "and what was expected where that was wrong (default: none)")
                           ->type_name("FILE");
  command->add_option("--sheet-count", options->sheet_count, "Images on --sheet, at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000))
      ->needs(sheet);
  command
      ->add_option("--samples", options->samples,
                   "With CONFIG: lines of text to print, of the first images: name, text, what was expected")
      ->capture_default_str()
      ->check(CLI::Range(0, 1'000'000));
  command->add_flag("--json", options->json, "JSON instead of a table (keys: docs/metrics.md)");
  command->callback([=, &line] { line.action = [=] { return run_eval(*options, launcher); }; });
}

void add_weights_inspect(CommandLine& line, CLI::App& weights) {
  CLI::App* command =
      weights.add_subcommand("inspect", "Lists what weight files hold: names, dtypes, shapes, bytes, metadata");
  auto options = std::make_shared<WeightsInspectOptions>();
  command
      ->add_option("file", options->path,
                   "A file of weights (safetensors, torch.save, .npz), an index of several, or a folder with any")
      ->required()
      ->type_name("PATH");
  command->add_flag("--json", options->json, "JSON instead of a table");
  command->callback([=, &line] { line.action = [=] { return run_weights_inspect(*options); }; });
}

void add_weights_random(CommandLine& line, CLI::App& weights) {
  CLI::App* command = weights.add_subcommand(
      "random", "Writes seeded random weights for the backbones of a configuration, under their published names");
  auto options = std::make_shared<WeightsRandomOptions>();
  add_config_options(*command, options->config);
  command->add_option("--out", options->out, "Folder; gets vision/ and text/ (no default)")
      ->required()
      ->type_name("FOLDER");
  command->add_option("--dtype", options->dtype, "f32, bf16 or f16")->capture_default_str();
  command->add_option("--shard-gb", options->shard_gb, "Largest file in GB (10^9 bytes) of tensor data")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1e6));
  command->callback([=, &line] { line.action = [=] { return run_weights_random(*options); }; });
}

void add_weights_import(CommandLine& line, CLI::App& weights) {
  CLI::App* command = weights.add_subcommand(
      "import", "Turns published weights into one safetensors file under the names that this program reads");
  auto options = std::make_shared<WeightsImportOptions>();
  command
      ->add_option(
          "--from", options->from,
          "A file of torch.save (.bin, .pt, .pth), a numpy .npz, safetensors, an index of several, or a folder "
          "with any of these (no default)")
      ->required()
      ->type_name("PATH");
  command->add_option("--to", options->to, "safetensors file to write (no default)")->required()->type_name("FILE");
  command
      ->add_option(
          "--as", options->as,
          "What the names mean: opt, timm_vit, timm_vit_npz (JAX originals), epalm, or raw for all as they are "
          "(no default)")
      ->required()
      ->type_name("KIND");
  command->add_option("--dtype", options->dtype, "Of floats in the new file: keep, f32, bf16 or f16")
      ->capture_default_str();
  command->callback([=, &line] { line.action = [=] { return run_weights_import(*options); }; });
}

void add_weights_export(CommandLine& line, CLI::App& weights) {
  CLI::App* command =
      weights.add_subcommand("export", "Writes what was trained here under the names and formats of other programs");
  auto options = std::make_shared<WeightsExportOptions>();
  command->add_option("--from", options->from, "adapter.safetensors, or the checkpoint folder that has it (no default)")
      ->required()
      ->type_name("PATH");
  command
      ->add_option("--to", options->to,
                   "File to write: .pth for epalm, .safetensors for the others; opt and timm_vit also take a folder, "
                   "which gets model.safetensors and, for opt, config.json (no default)")
      ->required()
      ->type_name("PATH");
  command
      ->add_option("--as", options->as,
                   "epalm (a PyTorch checkpoint of its trainer), opt (transformers) or timm_vit (timm) (no default)")
      ->required()
      ->type_name("KIND");
  command
      ->add_option("--dtype", options->dtype, "Of floats for opt and timm_vit: keep, f32, bf16 or f16; epalm has f32")
      ->capture_default_str();
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "opt, to a folder: copies vocab.json and merges.txt from here (default: none)")
      ->type_name("FOLDER");
  command
      ->add_option("--heads", options->heads,
                   "opt, to a folder: attention heads, which no weight file tells; 0: from the run's configuration, or "
                   "as a published model of that size has")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  command->callback([=, &line] { line.action = [=] { return run_weights_export(*options); }; });
}

void add_info(CommandLine& line, const Launcher& launcher) {
  CLI::App* command =
      line.app.add_subcommand("info", "Version, features and libraries of this build; what this machine offers");
  auto options = std::make_shared<InfoOptions>();
  command->add_flag("--json", options->json, "As JSON (default: text)");
  command->callback([=, &line] { line.action = [=] { return run_info(*options, launcher); }; });
}

void add_data_inspect(CommandLine& line, CLI::App& data) {
  CLI::App* command =
      data.add_subcommand("inspect", "Shows one sample as the model gets it: pixels, token ids, decoded text");
  auto options = std::make_shared<DataInspectOptions>();
  add_config_options(*command, options->config);
  command->add_option("--index", options->index, "Place of the sample in the dataset, from 0")->capture_default_str();
  command->add_option("--epoch", options->epoch, "Epoch whose random augmentation is shown, from 0")
      ->capture_default_str();
  command
      ->add_option("--out", options->out,
                   "safetensors file to write: pixels [3,H,W] F32 (normalised), input_ids [T] I64, text in the "
                   "metadata (default: none)")
      ->type_name("FILE");
  command->callback([=, &line] { line.action = [=] { return run_data_inspect(*options); }; });
}

void add_data_pack(CommandLine& line, CLI::App& data, const Launcher& launcher) {
  CLI::App* command = data.add_subcommand(
      "pack",
      "Packs the data of a configuration into HDF5 shards; alone or as one rank under mpirun or srun. Goes on "
      "where it was interrupted");
  auto options = std::make_shared<DataPackOptions>();
  add_config_options(*command, options->config);
  command->add_option("--out", options->out, "Folder of the shards; made if need be (no default)")
      ->required()
      ->type_name("FOLDER");
  command
      ->add_option("--shard-mb", options->shard_mb,
                   "Bytes of images per shard in MB (10^6 bytes); each rank needs twice as much memory")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1e6));
  command->add_flag("--evaluation", options->evaluation, "Pack evaluation.data instead of data");
  command->callback([=, &line] { line.action = [=] { return run_data_pack(*options, launcher); }; });
}

void add_sample_photos(CommandLine& line, CLI::App& data) {
  CLI::App* command = data.add_subcommand(
      "sample-photos",
      "Generates small images of coloured shapes with captions in COCO's layout, and a byte tokenizer for them");
  auto options = std::make_shared<SamplePhotosOptions>();
  command->add_option("--out", options->folder, "Folder to write images/, captions.json and tokenizer/ to (no default)")
      ->required()
      ->type_name("FOLDER");
  command->add_option("--count", options->count, "Images")->capture_default_str()->check(CLI::Range(1, 100000));
  command->add_option("--size", options->size_pixels, "Width and height of an image in pixels")
      ->capture_default_str()
      ->check(CLI::Range(8, 4096));
  command->add_option("--seed", options->seed, "Of what is drawn; the same seed gives the same images")
      ->capture_default_str();
  command->callback([=, &line] { line.action = [=] { return run_sample_photos(*options); }; });
}

void add_data_demo(CommandLine& line, CLI::App& data) {
  CLI::App* command = data.add_subcommand("demo",
                                          "Generates scenes of two coloured shapes with captions, questions, class "
                                          "labels, boxes, masks and depth order, and a "
                                          "tokenizer for them. A folder that is complete is left alone");
  auto options = std::make_shared<DataDemoOptions>();
  command
      ->add_option("--out", options->folder,
                   "Folder to write tokenizer/, annotations/ and a folder per split to (no default)")
      ->required()
      ->type_name("FOLDER");
  command->add_option("--seed", options->demo.seed, "Of everything; the same seed gives the same images and texts")
      ->capture_default_str();
  const auto count = [&](const char* name, int64_t& value, const char* what) {
    command->add_option(name, value, what)->capture_default_str()->check(CLI::Range(int64_t{0}, kMaxSamplesPerSplit));
  };
  count("--pretrain", options->demo.pretrain, "Images with class labels, to train a vision model on");
  count("--text", options->demo.text, "Texts without images, to train a language model on");
  count("--train", options->demo.train, "Images with captions and questions, to train an adapter on");
  count("--val", options->demo.val, "Images to choose a checkpoint by; a quarter has captions that --train never has");
  count("--test", options->demo.test, "Images to evaluate on, with the same share of such captions");
  command->add_option("--format", options->format, "shards (HDF5) or coco (an image file each)")
      ->capture_default_str()
      ->check(CLI::IsMember({"shards", "coco"}));
  command->add_flag(
      "--questions", options->demo.questions,
      "Also write train_questions, val_questions and test_questions: the same images, a sample per question");
  command->callback([=, &line] { line.action = [=] { return run_data_demo(*options); }; });
}

void add_byte_tokenizer(CommandLine& line, CLI::App& data) {
  CLI::App* command =
      data.add_subcommand("byte-tokenizer", "Writes the vocabulary of a tokenizer over single bytes (260 tokens)");
  auto options = std::make_shared<ByteTokenizerOptions>();
  command->add_option("--out", options->folder, "Folder to write vocab.json and merges.txt to (no default)")
      ->required()
      ->type_name("FOLDER");
  command->callback([=, &line] { line.action = [=] { return run_byte_tokenizer(*options); }; });
}

/// A command that is nothing without one of its own.
CLI::App& add_family(CommandLine& line, const char* name, const char* description) {
  CLI::App* family = line.app.add_subcommand(name, description);
  family->require_subcommand(1);
  return *family;
}

/// In the order that --help lists them.
void add_commands(CommandLine& line, const Launcher& launcher) {
  add_train(line, launcher);
  add_plan(line);
  add_probe(line);
  add_eval(line, launcher);
  add_generate(line, launcher);
  CLI::App& weights = add_family(line, "weights", "Looks at weight files, converts them and makes random ones");
  add_weights_inspect(line, weights);
  add_weights_import(line, weights);
  add_weights_export(line, weights);
  add_weights_random(line, weights);
  add_info(line, launcher);
  CLI::App& data = add_family(line, "data", "Looks at datasets, packs them, and makes small ones");
  add_data_inspect(line, data);
  add_data_pack(line, data, launcher);
  add_sample_photos(line, data);
  add_data_demo(line, data);
  add_byte_tokenizer(line, data);
  CLI::App& bench = add_family(line, "bench", "Measures this machine");
  add_benches(line, bench, launcher);
}

struct LogLevel {
  const char* name;
  int least;  // glog's severity
};
constexpr LogLevel kLogLevels[] = {
    {"info", google::GLOG_INFO}, {"warning", google::GLOG_WARNING}, {"error", google::GLOG_ERROR}};

void add_log_option(CLI::App& app, std::string& level) {
  app.add_option("--log", level, "Least important messages to write to standard error: info, warning or error")
      ->capture_default_str()
      ->type_name("LEVEL")
      ->check(CLI::IsMember({"info", "warning", "error"}));
}

/// Usage errors are the user's, and end with the code of a bad configuration; --help and --version end well.
int usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);
  const CLI::App* where = &app;
  while (!where->get_subcommands().empty()) where = where->get_subcommands().front();
  std::string command;
  for (const CLI::App* at = where; at; at = at->get_parent())
    command = at->get_name() + (command.empty() ? "" : " ") + command;
  std::string what = error.what();
  if (where == &app && dynamic_cast<const CLI::RequiredError*>(&error)) {  // whose own words name no command
    what = "expected a command:";
    for (const CLI::App* known : app.get_subcommands({})) what += " " + known->get_name();
    const std::vector<std::string> given = app.remaining();
    what += given.empty() ? "; got none" : "; got '" + given.front() + "'";
  }
  std::cerr << command << ": " << what << "\nSee " << command << " --help\n";
  return exit_code(ErrorKind::kConfig);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Trains small modules on top of large frozen pretrained models", "permafrost");
  app.set_version_flag("--version", std::string("permafrost ") + PERMAFROST_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  std::string level = "warning";
  add_log_option(app, level);
  CommandLine line{app, {}};
  add_commands(line, Environment::of_process().launcher());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return usage(app, error);
  }
  for (const LogLevel& known : kLogLevels)
    if (level == known.name) FLAGS_minloglevel = known.least;
  return line.action();
}

}  // namespace permafrost
