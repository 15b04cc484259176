//! The schemas of the OpenAPI document as types of TypeScript, and its routes and codes as data.

use std::fmt::Write;

use serde_json::Value;

use crate::routes::ROUTES;
use crate::{Code, Retry, openapi};

/// The file.
pub fn text() -> String {
    let document = openapi::document();
    let mut text = "// Made from the words of the API by `make generate`: do not edit.\n".to_owned();
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        about(&mut text, schema, "");
        // Writing to a String can't fail, here and below.
        _ = writeln!(text, "export type {name} = {};", kind(schema, ""));
    }
    text.push_str("\n/** The codes of refusals: their status, and whether to send the same request again. */\n");
    text.push_str("export const codes = {\n");
    for code in Code::ALL {
        let again = match code.retry() {
            Retry::No => "\"no\"",
            Retry::Yes => "\"yes\"",
            Retry::After(_) => "\"after Retry-After\"",
        };
        _ = writeln!(text, "  /** {} */\n  {code}: {{ status: {}, again: {again} }},", code.meaning(), code.status());
    }
    text.push_str("} as const;\nexport type Code = keyof typeof codes;\n");
    parameters(&mut text);
    text
}

/// A type for the parameters of each route that has some.
fn parameters(text: &mut String) {
    text.push_str("\n/** The parameters in the URL, by route. */\nexport interface Parameters {\n");
    for route in &ROUTES {
        let parameters = openapi::parameters(route);
        if parameters.is_empty() {
            continue;
        }
        _ = writeln!(text, "  /** {} */\n  \"{} {}\": {{", route.summary, route.method.as_str(), route.path);
        for parameter in parameters {
            let optional = if parameter.required { "" } else { "?" };
            let kind = kind(&parameter.schema, "    ");
            _ = writeln!(text, "    /** {} */\n    {}{optional}: {kind};", parameter.description, parameter.name);
        }
        text.push_str("  };\n");
    }
    text.push_str("}\n");
}

fn about(text: &mut String, schema: &Value, indent: &str) {
    if let Some(description) = schema["description"].as_str() {
        _ = writeln!(text, "{indent}/** {} */", description.replace('\n', " "));
    }
}

/// A schema as a type. Only what our types make of themselves is known here.
fn kind(schema: &Value, indent: &str) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for (field, by) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
        if let Some(schemas) = schema[field].as_array() {
            return schemas.iter().map(|schema| kind(schema, indent)).collect::<Vec<_>>().join(by);
        }
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let one = |name: &Value| {
                let mut schema = schema.clone();
                schema["type"] = name.clone();
                kind(&schema, indent)
            };
            kinds.iter().map(one).collect::<Vec<_>>().join(" | ")
        }
        Value::String(name) => match name.as_str() {
            "string" => "string".to_owned(),
            "integer" | "number" => "number".to_owned(),
            "boolean" => "boolean".to_owned(),
            "null" => "null".to_owned(),
            "array" => format!("Array<{}>", kind(&schema["items"], indent)),
            _ => object(schema, indent),
        },
        _ => "unknown".to_owned(),
    }
}

fn object(schema: &Value, indent: &str) -> String {
    let Some(fields) = schema["properties"].as_object() else { return "Record<string, unknown>".to_owned() };
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let inner = format!("{indent}  ");
    let mut text = "{\n".to_owned();
    for (name, field) in fields {
        about(&mut text, field, &inner);
        let optional = if required.contains(&name.as_str()) { "" } else { "?" };
        _ = writeln!(text, "{inner}{name}{optional}: {};", kind(field, &inner));
    }
    text + indent + "}"
}
