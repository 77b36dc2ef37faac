#include <iostream>

#include "data/demo/generate.h"
#include "launch/commands.h"
#include "launch/machine.h"

namespace permafrost {

int run_data_demo(const DataDemoOptions& options) {
  DemoOptions demo = options.demo;
  demo.format = options.format == "coco" ? DemoFormat::kCoco : DemoFormat::kShards;
  ThreadPool pool(usable_cores());
  const DemoOutcome outcome = generate_demo(options.folder, demo, pool);
  std::cout << options.folder << (outcome == DemoOutcome::kWritten ? ": " : " is complete: ") << demo.pretrain
            << " images to pre-train on, " << demo.text << " texts, " << demo.train << " images to train on, "
            << demo.val << " to validate, " << demo.test << " to test\n";
  return 0;
}

}  // namespace permafrost
