//! Templates in values: `${NAME}`, `${NAME:-default}` and `${NAME:?message}`.
//!
//! Templates are replaced after the YAML is parsed, so that no value can change the file's structure. As in
//! a shell, `:-` and `:?` apply if a variable is unset or empty, and a default may contain templates. `$${`
//! is an escaped `${`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::MAX_PROBLEMS;
use crate::diagnostic::Redactor;
use crate::diagnostic::{Path, Problems};

/// The maximum nesting depth of templates.
const MAX_DEPTH: usize = 16;

/// The sources of variables: `--var` first, then the environment.
pub(super) struct Variables<'v> {
    vars: &'v BTreeMap<String, String>,
    env: &'v dyn Fn(&str) -> Option<String>,
}

/// The result of interpolating a file.
#[derive(Debug, Default)]
pub(super) struct Interpolated {
    /// Texts that became a number or a boolean, kept for fields of type text.
    pub(super) texts: BTreeMap<Path, String>,
    /// Places where a template could not be replaced.
    pub(super) failed: Vec<Path>,
    /// The inserted values.
    pub(super) secrets: Redactor,
}

impl<'v> Variables<'v> {
    pub(super) fn new(vars: &'v BTreeMap<String, String>, env: &'v dyn Fn(&str) -> Option<String>) -> Self {
        Self { vars, env }
    }

    /// Replaces the templates in all texts of `value`; keys stay as they are.
    pub(super) fn interpolate(&self, value: &mut Value, problems: &mut Problems) -> Interpolated {
        let mut result = Interpolated::default();
        self.walk(value, &mut Path::new(), &mut result, problems);
        result
    }

    fn walk(&self, value: &mut Value, at: &mut Path, result: &mut Interpolated, problems: &mut Problems) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    at.push(key.clone());
                    self.walk(value, at, result, problems);
                    at.pop();
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter_mut().enumerate() {
                    at.push(index.to_string());
                    self.walk(value, at, result, problems);
                    at.pop();
                }
            }
            Value::String(text) if text.contains("${") && problems.list.len() <= MAX_PROBLEMS => {
                let mut values = Redactor::default();
                let expanded = self.expand(text, &mut values);
                match &expanded {
                    // The target is named in messages and reports. Its password is all that is secret.
                    Ok((url, _)) if at.as_slice() == TARGET && is_url(url) => result.secrets.add_url(url),
                    _ => result.secrets.add_all(&values),
                }
                match expanded {
                    Ok((expanded, whole)) => {
                        if whole && let Some(number_or_flag) = typed(&expanded) {
                            result.texts.insert(at.clone(), expanded);
                            *value = number_or_flag;
                        } else {
                            *text = expanded;
                        }
                    }
                    Err(Mistake { message, hint }) => {
                        problems.add_with_hint(at.clone(), message, hint);
                        result.failed.push(at.clone());
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the text with its templates replaced, and whether it was a single template.
    fn expand(&self, text: &str, secrets: &mut Redactor) -> Result<(String, bool), Mistake> {
        let (parts, _) = Parts::read(text, 0)?;
        let whole = matches!(parts.0.as_slice(), [Part::Variable { .. }]);
        Ok((self.fill(&parts, secrets)?, whole))
    }

    fn fill(&self, parts: &Parts, secrets: &mut Redactor) -> Result<String, Mistake> {
        let mut out = String::new();
        for part in &parts.0 {
            let (name, otherwise) = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Variable { name, otherwise } => (name, otherwise),
            };
            let found = self.vars.get(name).cloned().or_else(|| (self.env)(name));
            let found = found.filter(|value| !value.is_empty() || matches!(otherwise, Otherwise::Fail));
            match (found, otherwise) {
                (Some(value), _) => {
                    secrets.add(&value);
                    out.push_str(&value);
                }
                (None, Otherwise::Default(default)) => out.push_str(&self.fill(default, secrets)?),
                (None, Otherwise::Message(message)) => {
                    let message = if message.is_empty() { "it is required" } else { message };
                    return Err(Mistake {
                        message: format!("variable `{name}` is not set: {message}"),
                        hint: set_it(name),
                    });
                }
                (None, Otherwise::Fail) => {
                    return Err(Mistake {
                        message: format!("variable `{name}` is not set"),
                        hint: format!("{}, or add a default: `${{{name}:-…}}`", set_it(name)),
                    });
                }
            }
        }
        Ok(out)
    }
}

/// The place of the target's URL.
const TARGET: [&str; 2] = ["target", "url"];

/// Returns whether a text is a URL whose password can be found.
fn is_url(text: &str) -> bool {
    ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

fn set_it(name: &str) -> String {
    format!("set it in the environment or with `--var {name}=…`")
}

/// Returns a text as a number or a boolean, if it has the same notation as one.
fn typed(text: &str) -> Option<Value> {
    if let Ok(flag) = text.parse::<bool>() {
        return Some(Value::Bool(flag));
    }
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then(|| number.into())
}

/// A mistake in a template.
#[derive(Debug)]
struct Mistake {
    message: String,
    hint: String,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: "write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`; write `$${` for a literal `${`".into(),
        }
    }
}

/// A parsed text.
#[derive(Debug, Default)]
struct Parts(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Variable { name: String, otherwise: Otherwise },
}

/// The value of a template whose variable is not set.
#[derive(Debug)]
enum Otherwise {
    Fail,
    Default(Parts),
    Message(String),
}

impl Parts {
    /// Parses a text: all of it at depth 0, else up to the `}` of the enclosing template.
    fn read(text: &str, depth: usize) -> Result<(Self, &str), Mistake> {
        if depth > MAX_DEPTH {
            return Err(Mistake::new("templates are nested too deeply"));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        loop {
            if let Some(after) = rest.strip_prefix("$${") {
                plain.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                let (part, after) = Part::read(after, depth)?;
                parts.push(part);
                rest = after;
            } else if depth > 0 && rest.starts_with('}') {
                break;
            } else if let Some(c) = rest.chars().next() {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            } else if depth > 0 {
                return Err(Mistake::new("`${` without `}`"));
            } else {
                break;
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok((Self(parts), rest))
    }
}

impl Part {
    /// Parses a template after its `${`, and returns the rest after its `}`.
    fn read(text: &str, depth: usize) -> Result<(Self, &str), Mistake> {
        let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Mistake::new("`${` without a variable name"));
        }
        let (otherwise, rest) = if let Some(default) = rest.strip_prefix(":-") {
            let (default, rest) = Parts::read(default, depth + 1)?;
            (Otherwise::Default(default), rest)
        } else if let Some(message) = rest.strip_prefix(":?") {
            let end = message.find('}').unwrap_or(message.len());
            (Otherwise::Message(message[..end].to_owned()), &message[end..])
        } else {
            (Otherwise::Fail, rest)
        };
        let rest = match rest.strip_prefix('}') {
            Some(rest) => rest,
            None if rest.is_empty() => return Err(Mistake::new(format!("`${{{name}` without `}}`"))),
            None => return Err(Mistake::new(format!("invalid template after `${{{name}`"))),
        };
        Ok((Self::Variable { name: name.to_owned(), otherwise }, rest))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::path;

    fn run(mut value: Value) -> (Value, Interpolated, Problems) {
        let vars =
            BTreeMap::from([("VAR".to_owned(), "from-var".to_owned()), ("BOTH".to_owned(), "var-wins".to_owned())]);
        let env = |name: &str| match name {
            "ENV" => Some("from-env".to_owned()),
            "BOTH" => Some("env-loses".to_owned()),
            "EMPTY" => Some(String::new()),
            "NUMBER" => Some("42".to_owned()),
            "ZEROS" => Some("007".to_owned()),
            "FLAG" => Some("true".to_owned()),
            "YAML" => Some("a: 1\nb: [${ENV}]".to_owned()),
            _ => None,
        };
        let mut problems = Problems::default();
        let result = Variables::new(&vars, &env).interpolate(&mut value, &mut problems);
        (value, result, problems)
    }

    fn text(template: &str) -> Value {
        let (value, _, problems) = run(json!(template));
        assert!(problems.is_empty(), "{problems:?}");
        value
    }

    fn mistake(template: &str) -> String {
        run(json!(template)).2.list.remove(0).message
    }

    #[test]
    fn variable_of_the_command_line_wins_over_the_environment() {
        assert_eq!(text("<${VAR}|${ENV}|${BOTH}>"), json!("<from-var|from-env|var-wins>"));
    }

    #[test]
    fn a_default_stands_in_for_a_variable_that_is_unset_or_empty() {
        assert_eq!(text("${NONE:-x y}-${EMPTY:-z}-${ENV:-no}-${NONE:-}"), json!("x y-z-from-env-"));
        assert_eq!(text("${NONE:-${OTHER:-${ENV}}}"), json!("from-env"));
        assert_eq!(text("${NONE:-a${OTHER:-b}c}}"), json!("abc}"));
        assert_eq!(text("${EMPTY}"), json!(""));
    }

    #[test]
    fn a_default_that_is_not_needed_is_not_looked_up() {
        assert_eq!(text("${ENV:-${NONE}}"), json!("from-env"));
    }

    #[test]
    fn dollars_that_begin_no_template_stay() {
        assert_eq!(text("$${ENV} $$ $5 ^a$"), json!("${ENV} $$ $5 ^a$"));
        assert_eq!(text("$${ENV} ${ENV}"), json!("${ENV} from-env"));
    }

    #[test]
    fn a_text_that_is_one_template_becomes_a_number_or_a_boolean() {
        assert_eq!(text("${NUMBER}"), json!(42));
        assert_eq!(text("${NONE:-7}"), json!(7));
        assert_eq!(text("${FLAG}"), json!(true));
        assert_eq!(text("x${NUMBER}"), json!("x42"));
        assert_eq!(text("${ZEROS}"), json!("007"));
        assert_eq!(run(json!(["${NUMBER}"])).1.texts, BTreeMap::from([(path![0], "42".to_owned())]));
    }

    #[test]
    fn a_value_is_text_and_no_yaml_and_no_template() {
        assert_eq!(text("${YAML}"), json!("a: 1\nb: [${ENV}]"));
    }

    #[test]
    fn keys_are_not_replaced() {
        assert_eq!(run(json!({"${ENV}": 1})).0, json!({"${ENV}": 1}));
    }

    #[test]
    fn a_variable_that_is_not_set_is_a_problem_at_its_place() {
        let (_, result, problems) = run(json!({"a": [{"b": "${NONE}"}, "${NONE:?give me one}", "${EMPTY:?}"]}));
        let messages: Vec<_> = problems.list.iter().map(|p| (p.at.join("."), p.message.as_str())).collect();
        assert_eq!(
            messages,
            [
                ("a.0.b".to_owned(), "variable `NONE` is not set"),
                ("a.1".to_owned(), "variable `NONE` is not set: give me one"),
                ("a.2".to_owned(), "variable `EMPTY` is not set: it is required"),
            ]
        );
        assert_eq!(result.failed.len(), 3);
    }

    #[test]
    fn a_template_that_cannot_be_read_is_a_problem() {
        assert_eq!(mistake("x ${ENV"), "`${ENV` without `}`");
        assert_eq!(mistake("${NONE:-a"), "`${` without `}`");
        assert_eq!(mistake("${NONE:?a"), "`${NONE` without `}`");
        assert_eq!(mistake("${}"), "`${` without a variable name");
        assert_eq!(mistake("${1A}"), "`${` without a variable name");
        assert_eq!(mistake("${A-b}"), "invalid template after `${A`");
        assert_eq!(mistake(&"${A:-".repeat(100_000)), "templates are nested too deeply");
    }

    #[test]
    fn of_the_targets_url_only_the_password_is_secret() {
        for (url, text, expected) in [
            ("postgres://me:hunter22@host:5432/live", "me hunter22 host:5432/live", "me *** host:5432/live"),
            ("sqlite:customer.db", "sqlite:customer.db", "sqlite:customer.db"),
            ("hunter22:x", "hunter22:x", "***"),
        ] {
            let vars = BTreeMap::from([("URL".to_owned(), url.to_owned())]);
            let mut value = json!({ "target": { "url": "${URL}" } });
            let mut problems = Problems { file: "f".into(), text: String::new(), list: Vec::new() };
            let secrets = Variables::new(&vars, &|_| None).interpolate(&mut value, &mut problems).secrets;
            assert_eq!(secrets.mask(text), expected);
        }
    }

    #[test]
    fn values_are_secrets_and_defaults_are_not() {
        let secrets = run(json!(["${ENV}", "${VAR}", "${NONE:-default}"])).1.secrets;
        assert_eq!(secrets.mask("from-env from-var default"), "*** *** default");
    }
}
