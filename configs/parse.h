#pragma once
#include <google/protobuf/message.h>

#include <string>

#include "configs/problems.h"

namespace permafrost::config {

/// Reads protobuf text and merges what could be read into `message`. Unknown fields and unknown values of
/// enumerations are collected together with line numbers and what is allowed there; a syntax error ends the reading.
/// `source` names the text in messages ("configs/a.textproto").
void parse_text(const std::string& text, const std::string& source, google::protobuf::Message& message,
                Problems& problems);

}  // namespace permafrost::config
