#include "configs/parse.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <regex>
#include <vector>

#include "configs/fields.h"

namespace permafrost::config {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

namespace {

struct Remark {
  int line = 0;  // from 0; -1 for the whole text
  int column = 0;
  std::string text;
};

class Collector : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& text) override {
    errors.push_back({line, column, text});
  }
  void AddWarning(int line, google::protobuf::io::ColumnNumber column, const std::string& text) override {
    warnings.push_back({line, column, text});
  }
  std::vector<Remark> errors;
  std::vector<Remark> warnings;
};

std::string place(const std::string& source, const Remark& remark) {
  return remark.line < 0 ? source : concat(source, ":", remark.line + 1);
}

/// The parser knows the message type and the wrong name; what is allowed instead must be looked up.
std::string explain_unknown_field(const Message& root, const std::string& text) {
  static const std::regex pattern("Message type \"([^\"]+)\" has no field named \"([^\"]+)\"\\.");
  std::smatch match;
  if (!std::regex_search(text, match, pattern)) return text;
  const Descriptor* type = root.GetDescriptor()->file()->pool()->FindMessageTypeByName(match[1]);
  return type ? no_such_field(*type, match[2]) : text;
}

/// The type of the message that is open at the end of `text`: names before braces, followed from `root`.
const Descriptor* open_message(const Descriptor* root, const std::string& text) {
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  Collector ignored;
  google::protobuf::io::Tokenizer tokenizer(&stream, &ignored);
  tokenizer.set_comment_style(google::protobuf::io::Tokenizer::SH_COMMENT_STYLE);
  std::vector<std::string> open;
  std::string name;
  while (tokenizer.Next()) {
    const auto& token = tokenizer.current();
    if (token.type == google::protobuf::io::Tokenizer::TYPE_IDENTIFIER) {
      name = token.text;
    } else if (token.text == "{" || token.text == "<") {
      open.push_back(name);
    } else if ((token.text == "}" || token.text == ">") && !open.empty()) {
      name = open.back();  // the next element of a list has no name of its own
      open.pop_back();
    }
  }
  const Descriptor* type = root;
  for (const std::string& step : open) {
    const FieldDescriptor* field = type ? type->FindFieldByName(step) : nullptr;
    type = field ? field->message_type() : nullptr;
  }
  return type;
}

struct BadValue {
  std::string value;
  std::string field;
};

std::optional<BadValue> bad_enum_value(const std::string& text) {
  static const std::regex pattern("Unknown enumeration value of \"([^\"]+)\" for field \"([^\"]+)\"\\.");
  std::smatch match;
  if (!std::regex_search(text, match, pattern)) return std::nullopt;
  return BadValue{match[1], match[2]};
}

size_t offset_of(const std::string& text, int line, int column) {
  size_t offset = 0;
  for (int i = 0; i < line && offset != std::string::npos; ++i) {
    offset = text.find('\n', offset);
    if (offset != std::string::npos) ++offset;
  }
  return offset == std::string::npos ? text.size() : std::min(text.size(), offset + static_cast<size_t>(column));
}

/// The parser stops at an unknown enumeration value. To find the problems behind it too, the value is overwritten with
/// an allowed one and the text is read again. False when that cannot be done.
bool mend_enum_value(std::string& text, const Remark& error, const BadValue& bad, const Message& root,
                     Problems& problems, const std::string& source) {
  // The remark stands at the token after the value.
  const size_t at = text.rfind(bad.value, offset_of(text, error.line, error.column));
  if (at == std::string::npos) return false;
  const Descriptor* type = open_message(root.GetDescriptor(), text.substr(0, at));
  const FieldDescriptor* field = type ? type->FindFieldByName(bad.field) : nullptr;
  if (!field || !field->enum_type()) return false;
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
  problems.expected(concat(source, ":", line), concat("one of ", value_names(*field->enum_type()), " for ", bad.field),
                    bad.value);
  text.replace(at, bad.value.size(), field->enum_type()->value(0)->name());
  return true;
}

}  // namespace

void parse_text(const std::string& text, const std::string& source, Message& message, Problems& problems) {
  constexpr int kMostMended = 100;
  std::string mended = text;
  for (int attempt = 0; attempt < kMostMended; ++attempt) {
    Collector collector;
    google::protobuf::TextFormat::Parser parser;
    parser.RecordErrorsTo(&collector);
    parser.AllowUnknownField(true);  // as a warning, so that the rest is read too; it is an error all the same
    parser.AllowPartialMessage(true);
    const std::unique_ptr<Message> fresh(message.New());
    const bool parsed = parser.ParseFromString(mended, fresh.get());
    if (!parsed && collector.errors.size() == 1) {
      const auto bad = bad_enum_value(collector.errors[0].text);
      if (bad && mend_enum_value(mended, collector.errors[0], *bad, message, problems, source)) continue;
    }
    message.MergeFrom(*fresh);
    for (const Remark& warning : collector.warnings)
      problems.add(place(source, warning), explain_unknown_field(message, warning.text));
    for (const Remark& error : collector.errors) problems.add(place(source, error), error.text);
    if (!parsed && collector.errors.empty()) problems.add(source, "is not protobuf text");
    return;
  }
  problems.add(source, concat("reading stopped after ", kMostMended, " unknown values"));
}

}  // namespace permafrost::config
