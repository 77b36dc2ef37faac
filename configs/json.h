#pragma once
#include <google/protobuf/message.h>

#include <string>

namespace permafrost::config {

/// JSON of a message with the field names of the schema, in its order; enumerations by name, 64-bit integers as
/// numbers. What is not set is left out. Indented by two; ends with a newline.
std::string to_json(const google::protobuf::Message& message);

}  // namespace permafrost::config
