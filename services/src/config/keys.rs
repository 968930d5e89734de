//! Every key there is: its kind, what it is if nobody says, what it means. Taken from the types themselves, so that neither the page
//! about them nor the variables of the environment can differ from what a node reads.

use super::{Config, reload};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::fmt::Write;

/// A key of the file.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// With its section, as `log.sync`; `nodes[].id` for what each of a list has.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// As TOML has it; none: there is no value then, or there must be one.
    pub(super) default: Option<String>,
    pub(super) is_required: bool,
    pub(super) meaning: String,
}

/// What a key's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    Choice(Vec<String>),
    List,
}

impl Key {
    /// It is one of those that each of a list has.
    pub(super) fn is_in_list(&self) -> bool {
        self.name.contains("[]")
    }
}

/// All keys: those without a section first, then by the alphabet.
pub(super) fn keys() -> Vec<Key> {
    let inline = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = inline.into_generator().into_root_schema_for::<Config>().to_value();
    let mut found = Vec::new();
    walk("", &schema, &mut found);
    found.sort_by_key(|key| (key.name.contains(['.', '[']), key.name.clone()));
    found
}

fn walk(above: &str, schema: &Value, found: &mut Vec<Key>) {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|it| it.as_str() == Some(name)))
    };
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        // What may be absent is itself or nothing.
        let inner = of["anyOf"].as_array().map_or(of, |either| &either[0]);
        if inner["properties"].is_object() {
            walk(&path, inner, found);
            continue;
        }
        let default = Some(&of["default"]).filter(|it| !it.is_null() && **it != Value::Array(Vec::new()));
        found.push(Key {
            kind: kind(inner),
            default: default.map(Value::to_string),
            is_required: required(name),
            meaning: of["description"].as_str().unwrap_or_default().replace('\n', " "),
            name: path.clone(),
        });
        if inner["items"]["properties"].is_object() {
            walk(&format!("{path}[]"), &inner["items"], found);
        }
    }
}

fn kind(schema: &Value) -> Kind {
    let is = |name: &str| {
        schema["type"] == name || schema["type"].as_array().is_some_and(|all| all.iter().any(|it| it == name))
    };
    let said = |values: &Value, of: fn(&Value) -> &Value| -> Vec<String> {
        values.as_array().into_iter().flatten().filter_map(|it| Some(of(it).as_str()?.to_owned())).collect()
    };
    let choices = [said(&schema["oneOf"], |it| &it["const"]), said(&schema["enum"], |it| it)].concat();
    match choices.is_empty() {
        false => Kind::Choice(choices),
        true if is("integer") => Kind::Number,
        true if is("boolean") => Kind::Flag,
        true if is("array") => Kind::List,
        true => Kind::Text,
    }
}

/// Every key of a node's file, as the table in `docs/config.md` has them.
pub fn table() -> String {
    let mut text = "| key | is | unless said | change | what |\n|---|---|---|---|---|\n".to_owned();
    for key in keys() {
        let kind = match &key.kind {
            Kind::Text => "text".to_owned(),
            Kind::Number => "number".to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Choice(all) => all.iter().map(|it| format!("`\"{it}\"`")).collect::<Vec<_>>().join(", "),
            Kind::List => "list".to_owned(),
        };
        let default = match (&key.default, key.is_required) {
            (Some(value), _) => format!("`{value}`"),
            (None, true) if key.name.contains('.') => "required there".to_owned(),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        let change = if reload::is_reloadable(&key.name) { "SIGHUP" } else { "restart" };
        writeln!(text, "| `{}` | {kind} | {default} | {change} | {} |", key.name, key.meaning)
            .expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BEGIN: &str = "<!-- The table is made from the code: see services/src/config/keys.rs -->\n";
    const END: &str = "<!-- Its end -->\n";

    #[test]
    fn the_page_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/config.md has the beginning of a table");
        let (found, after) = rest.split_once(END).expect("docs/config.md has the end of a table");
        let table = table();
        if found != table && std::env::var_os("FLOTILLA_WRITE_TABLE").is_some() {
            return std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        }
        for (found, expected) in found.lines().zip(table.lines()) {
            assert_eq!(
                found, expected,
                "run this test with FLOTILLA_WRITE_TABLE=1 to write docs/config.md anew"
            );
        }
        assert_eq!(found.len(), table.len(), "docs/config.md has other keys than the code");
    }

    #[test]
    fn every_key_says_what_it_is() {
        let all = keys();
        let find =
            |name: &str| all.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert!(all.iter().all(|key| key.meaning.len() > 10), "{all:?}");
        assert!(find("node").is_required && find("tls.cert").is_required && !find("shards").is_required);
        assert_eq!(find("shards").default.as_deref(), Some("64"));
        assert_eq!(find("nodes[].priority").default.as_deref(), Some("100"));
        assert_eq!(find("log.sync").kind, Kind::Choice(vec!["fdatasync".to_owned(), "dsync".to_owned()]));
        assert_eq!(find("log_level").kind, Kind::Text);
        assert_eq!((&find("nodes").kind, &find("raft.lease_reads").kind), (&Kind::List, &Kind::Flag));
    }
}
