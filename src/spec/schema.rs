//! The JSON Schema of the pipeline file, for editors.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::model::PipelineSpec;
use crate::diagnostic::Path;

/// Types whose own schema admits templates.
const WITH_TEXTS: [&str; 3] = ["Scalar", "StartRowNumber", "Threshold"];

/// Returns the JSON Schema (draft 7) of the pipeline file. A number or a boolean can also be a `${…}` template.
pub fn json_schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<PipelineSpec>().to_value();
    admit_templates(&mut schema);
    schema
}

/// Admits a template for each number, boolean, and character.
fn admit_templates(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if !WITH_TEXTS.contains(&name.as_str()) {
                    admit_templates(value);
                }
            }
            if wants_template(fields) {
                let mut outer = Map::new();
                for name in ["description", "default"] {
                    if let Some(value) = fields.shift_remove(name) {
                        outer.insert(name.to_owned(), value);
                    }
                }
                let template = json!({ "type": "string", "pattern": r"\$\{.*\}" });
                outer.insert("anyOf".to_owned(), json!([std::mem::take(fields), template]));
                *fields = outer;
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(admit_templates),
        _ => {}
    }
}

/// Returns whether this is the schema of a number, a boolean, or a single character.
fn wants_template(fields: &Map<String, Value>) -> bool {
    let is = |kind: &str| match fields.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        _ => false,
    };
    is("integer") || is("number") || is("boolean") || (is("string") && fields.contains_key("maxLength"))
}

/// Returns the paths of lists in place of mappings, which serde would read into a struct by position.
pub(super) fn lists_for_mappings(value: &Value) -> Vec<Path> {
    fn walk(root: &Value, schema: &Value, value: &Value, at: &mut Path, found: &mut Vec<Path>) {
        for alternatives in ["allOf", "anyOf"] {
            for schema in schema.get(alternatives).and_then(Value::as_array).into_iter().flatten() {
                walk(root, schema, value, at, found);
            }
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#'))
            && let Some(schema) = root.pointer(reference)
        {
            walk(root, schema, value, at, found);
        }
        match value {
            Value::Array(_) if schema.get("type").is_some_and(|kind| kind == "object") => found.push(at.clone()),
            Value::Array(elements) => {
                if let Some(schema) = schema.get("items") {
                    for (index, value) in elements.iter().enumerate() {
                        at.push(index.to_string());
                        walk(root, schema, value, at, found);
                        at.pop();
                    }
                }
            }
            Value::Object(fields) => {
                for (field, value) in fields {
                    let named = schema.get("properties").and_then(|fields| fields.get(field));
                    if let Some(schema) = named.or_else(|| schema.get("additionalProperties")) {
                        at.push(field.clone());
                        walk(root, schema, value, at, found);
                        at.pop();
                    }
                }
            }
            _ => {}
        }
    }
    let root = json_schema();
    let mut found = Vec::new();
    walk(&root, &root, value, &mut Path::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "version": 1,
            "name": "demo",
            "target": { "url": "sqlite:demo.db" },
            "tables": { "account": { "source": { "path": "a.csv" }, "legacy_key": ["ref"] } }
        })
    }

    fn accepts(document: &Value) -> bool {
        jsonschema::draft7::new(&json_schema()).unwrap().is_valid(document)
    }

    fn with(pointer: &str, field: &str, value: Value) -> Value {
        let mut document = minimal();
        document.pointer_mut(pointer).unwrap()[field] = value;
        document
    }

    #[test]
    fn it_is_a_valid_draft_7_schema() {
        let schema = json_schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert!(jsonschema::draft7::meta::is_valid(&schema));
    }

    #[test]
    fn a_minimal_pipeline_is_valid_and_a_misspelt_field_is_not() {
        assert!(accepts(&minimal()));
        assert!(!accepts(&with("", "safegards", json!({}))));
        assert!(!accepts(&with("/tables/account", "legacy_keys", json!(["ref"]))));
        assert!(!accepts(&with("/tables/account", "legacy_key", json!("ref"))));
    }

    #[test]
    fn scalars_may_be_templates_and_no_other_text() {
        for (field, value) in [("header", json!(true)), ("escape", json!("\\"))] {
            assert!(accepts(&with("/tables/account/source", "csv", json!({ field: value }))));
            assert!(accepts(&with("/tables/account/source", "csv", json!({ field: "${X:-1}" }))));
            assert!(!accepts(&with("/tables/account/source", "csv", json!({ field: "other" }))));
        }
        for (field, value) in [("width", json!(8)), ("start_row_number", json!(8)), ("start_row_number", json!("auto"))]
        {
            assert!(accepts(&with("/tables/account", "key", json!({ field: value }))));
            assert!(accepts(&with("/tables/account", "key", json!({ field: "${X}" }))));
            assert!(!accepts(&with("/tables/account", "key", json!({ field: "other" }))));
        }
        assert!(accepts(&with("/tables/account", "max_rejects", json!("${X}"))));
        assert!(accepts(&with("/tables/account", "max_rejects", json!("1.5%"))));
        assert!(accepts(&with("", "version", json!("${V}"))));
    }

    #[test]
    fn a_list_for_a_mapping_is_found_wherever_it_is() {
        let mut document = minimal();
        document["safeguards"] = json!([]);
        document["tables"]["account"]["key"] = json!(["id"]);
        document["tables"]["account"]["checks"] = json!([{ "range": ["x", 1, 2] }, [["a"]], { "unique": ["a"] }]);
        let found: Vec<_> = lists_for_mappings(&document).iter().map(|at| at.join(".")).collect();
        assert_eq!(
            found,
            ["tables.account.key", "tables.account.checks.0.range", "tables.account.checks.1", "safeguards"]
        );
    }

    #[test]
    fn comments_are_descriptions() {
        let schema = json_schema();
        assert!(schema["properties"]["name"]["description"].as_str().unwrap().starts_with("The pipeline's name"));
        assert!(schema["properties"]["version"]["description"].as_str().unwrap().starts_with("The version"));
        assert!(schema["properties"]["target"]["description"].as_str().unwrap().starts_with("The target database"));
    }
}
