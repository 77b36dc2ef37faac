#include "configs/fields.h"

#include <algorithm>
#include <vector>

#include "core/base/check.h"

namespace permafrost::config {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

namespace {

/// Levenshtein distance.
size_t edits(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

void set_default(const Reflection& reflection, Message& message, const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      reflection.SetInt32(&message, field, field->default_value_int32());
      return;
    case FieldDescriptor::CPPTYPE_INT64:
      reflection.SetInt64(&message, field, field->default_value_int64());
      return;
    case FieldDescriptor::CPPTYPE_UINT32:
      reflection.SetUInt32(&message, field, field->default_value_uint32());
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      reflection.SetUInt64(&message, field, field->default_value_uint64());
      return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      reflection.SetDouble(&message, field, field->default_value_double());
      return;
    case FieldDescriptor::CPPTYPE_FLOAT:
      reflection.SetFloat(&message, field, field->default_value_float());
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      reflection.SetBool(&message, field, field->default_value_bool());
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      reflection.SetEnum(&message, field, field->default_value_enum());
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      reflection.SetString(&message, field, field->default_value_string());
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  fail(ErrorKind::kInternal, "fill_defaults: field ", field->full_name(), " is no scalar");
}

}  // namespace

std::string field_names(const Descriptor& message) {
  std::string names;
  for (int i = 0; i < message.field_count(); ++i) names += (i ? ", " : "") + message.field(i)->name();
  return names;
}

std::string value_names(const EnumDescriptor& values) {
  std::string names;
  for (int i = 0; i < values.value_count(); ++i) names += (i ? ", " : "") + values.value(i)->name();
  return names;
}

std::string no_such_field(const Descriptor& message, const std::string& name) {
  const FieldDescriptor* closest = nullptr;
  size_t distance = name.size() / 2 + 1;  // farther than this, a suggestion would only mislead
  for (int i = 0; i < message.field_count(); ++i) {
    const size_t here = edits(name, message.field(i)->name());
    if (here < distance) {
      distance = here;
      closest = message.field(i);
    }
  }
  return concat("no field '", name, "'", closest ? " (did you mean '" + closest->name() + "'?)" : "",
                "; fields here: ", field_names(message));
}

void fill_defaults(Message& message) {
  const Descriptor& descriptor = *message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (field->is_repeated()) {
      if (!is_message) continue;
      for (int j = 0; j < reflection.FieldSize(message, field); ++j)
        fill_defaults(*reflection.MutableRepeatedMessage(&message, field, j));
    } else if (is_message) {
      if (field->containing_oneof() && !reflection.HasField(message, field)) continue;
      fill_defaults(*reflection.MutableMessage(&message, field));
    } else if (field->has_default_value() && !reflection.HasField(message, field)) {
      set_default(reflection, message, field);
    }
  }
}

}  // namespace permafrost::config
