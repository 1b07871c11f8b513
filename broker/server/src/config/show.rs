//! The configuration in force, printed as TOML with the origin of each value.

use std::fmt::Write;

use super::tree::{Content, Tree};

/// Keys whose value is not for eyes.
const SECRET: &[&str] = &["password", "password_hash", "scram_sha_256"];

/// Prints a tree whose root is a table.
pub(super) fn toml(tree: &Tree) -> String {
    let mut out = String::new();
    table(&mut out, "", tree);
    out
}

fn table(out: &mut String, path: &str, tree: &Tree) {
    let Content::Table(entries) = &tree.content else { return };
    // Sub-tables come after the plain keys, or TOML would take those for keys of the last sub-table.
    let (nested, plain): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, value)| is_nested(value));
    for (key, value) in plain {
        let text = if SECRET.contains(&key.as_str()) { "\"(hidden)\"".to_owned() } else { inline(value) };
        line(out, &format!("{key} = {text}"), value);
    }
    for (key, value) in nested {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match &value.content {
            Content::List(rows) => {
                for row in rows {
                    let _ = write!(out, "\n[[{path}]]\n");
                    table(out, &path, row);
                }
            }
            _ => {
                let _ = write!(out, "\n[{path}]\n");
                table(out, &path, value);
            }
        }
    }
}

fn line(out: &mut String, text: &str, value: &Tree) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text:<40} # {}", value.origin);
}

fn is_nested(value: &Tree) -> bool {
    match &value.content {
        Content::Table(_) => true,
        Content::List(items) => items.iter().any(|i| matches!(i.content, Content::Table(_))),
        Content::Scalar(_) => false,
    }
}

fn inline(value: &Tree) -> String {
    value.value().to_string()
}
