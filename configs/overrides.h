#pragma once
#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "configs/problems.h"

namespace permafrost::config {

/// Applies one `--set`: a path of field names, `=`, and a value.
///   train.max_steps=10                 numbers, true/false
///   parallel.reduction=PLAIN           enumerations by name
///   data.root=/a/path with spaces      strings as they are, without quotes
///   data.length_buckets=16,32          replaces a list
///   data.length_buckets+=64            appends to it
///   freeze+={pattern: "text.*" trainable: true}   messages in protobuf text
///   freeze[0].trainable=false          one element of a list
///   optimizer.groups=                  empties a list
/// What is wrong is added to `problems`, naming what is allowed.
void apply_override(const std::string& assignment, google::protobuf::Message& message, Problems& problems);

}  // namespace permafrost::config
