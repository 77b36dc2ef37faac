#include "configs/parse.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

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

const FieldDescriptor* find_enum_field(const Descriptor& message, const std::string& name, const std::string& wrong,
                                       int depth = 0) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor* field = message.field(i);
    if (field->enum_type() && field->name() == name && !field->enum_type()->FindValueByName(wrong)) return field;
    if (field->message_type() && depth < 16)
      if (const FieldDescriptor* found = find_enum_field(*field->message_type(), name, wrong, depth + 1)) return found;
  }
  return nullptr;
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
bool mend_enum_value(std::string& text, const Remark& error, const BadValue& bad, const Message& root, Problems& problems,
                     const std::string& source) {
  const FieldDescriptor* field = find_enum_field(*root.GetDescriptor(), bad.field, bad.value);
  if (!field) return false;
  // The remark stands at the token after the value.
  const size_t at = text.rfind(bad.value, offset_of(text, error.line, error.column));
  if (at == std::string::npos) return false;
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
    const bool parsed = parser.ParseFromString(mended, &message);
    if (!parsed && collector.errors.size() == 1) {
      const auto bad = bad_enum_value(collector.errors[0].text);
      if (bad && mend_enum_value(mended, collector.errors[0], *bad, message, problems, source)) continue;
    }
    for (const Remark& warning : collector.warnings)
      problems.add(place(source, warning), explain_unknown_field(message, warning.text));
    for (const Remark& error : collector.errors) problems.add(place(source, error), error.text);
    if (!parsed && collector.errors.empty()) problems.add(source, "is not protobuf text");
    return;
  }
  problems.add(source, concat("reading stopped after ", kMostMended, " unknown values"));
}

}  // namespace permafrost::config
