#include "launch/command.h"

namespace permafrost {

void add_config_options(CLI::App& command, ConfigOptions& options) {
  command.add_option("config", options.path, "Configuration: a file in protobuf text, such as configs/*.textproto")
      ->required()
      ->type_name("CONFIG");
  command
      .add_option("--set", options.overrides,
                  "Overrides one field: path.to.field=value, or += to append to a list; may be repeated (default: none)")
      ->type_name("PATH=VALUE")
      ->expected(1)
      ->take_all();
}

}  // namespace permafrost
