#pragma once
#include <google/protobuf/message.h>

#include <string>

namespace permafrost::config {

/// "max_steps, global_batch, micro_batch": the fields of a message, in the order of the schema.
std::string field_names(const google::protobuf::Descriptor& message);
/// "AUTO, BF16, FP32": the values of an enumeration.
std::string value_names(const google::protobuf::EnumDescriptor& values);

/// The sentence for a field that does not exist: names the closest one, where there is a close one, and all of them.
std::string no_such_field(const google::protobuf::Descriptor& message, const std::string& name);

/// Writes out the default of every scalar that has one and is not set, and makes every message that is not there.
/// Leaves alone what has no default, alternatives of a oneof that were not chosen, and repeated fields.
void fill_defaults(google::protobuf::Message& message);

}  // namespace permafrost::config
