//! Unknown keys, and what was probably meant.

use super::tree::{Content, Tree};

/// An unknown key and what to say about it.
pub(super) struct Unknown {
    pub(super) path: String,
    pub(super) message: String,
}

/// Finds the keys of `written` that `shape` does not have.
pub(super) fn unknown_keys(written: &Tree, shape: &Tree) -> Vec<Unknown> {
    let mut found = Vec::new();
    walk(written, shape, shape, "", &mut found);
    found
}

fn walk(written: &Tree, here: &Tree, shape: &Tree, path: &str, found: &mut Vec<Unknown>) {
    match (&written.content, &here.content) {
        // Its keys are names of the operator's own.
        (Content::Table(_), Content::Table(known)) if known.is_empty() => {}
        (Content::Table(entries), Content::Table(_)) => {
            for (key, value) in entries {
                let path = join(path, key);
                match here.get(key) {
                    Some(known) => walk(value, known, shape, &path, found),
                    None => found.push(Unknown { message: advice(&path, key, here, shape), path }),
                }
            }
        }
        (Content::List(items), Content::List(rows)) => {
            // All rows of a list have the same shape.
            let Some(row) = rows.first() else { return };
            for (number, item) in items.iter().enumerate() {
                walk(item, row, shape, &join(path, &number.to_string()), found);
            }
        }
        // A wrong kind of value: the typed reading says so, and what it expected.
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn advice(path: &str, key: &str, here: &Tree, shape: &Tree) -> String {
    let shown = shown(path);
    let siblings: Vec<&str> = keys(here).collect();
    if let Some(near) = nearest(key, siblings.iter().copied()) {
        let meant = match path.rsplit_once('.') {
            Some((section, _)) => join(&self::shown(section), near),
            None => near.to_owned(),
        };
        return format!("unknown key `{shown}`; did you mean `{meant}`?");
    }
    // The right key in the wrong section is the other usual slip.
    let elsewhere = keys(shape).find(|section| shape.get(section).is_some_and(|s| s.get(key).is_some()));
    match elsewhere {
        Some(section) => format!("unknown key `{shown}`; did you mean `{section}.{key}`?"),
        None => format!("unknown key `{shown}`; known here: {}", siblings.join(", ")),
    }
}

/// A path as people write it: without the numbers of rows.
pub(super) fn shown(path: &str) -> String {
    path.split('.').filter(|step| step.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

fn keys(tree: &Tree) -> impl Iterator<Item = &str> {
    let entries = match &tree.content {
        Content::Table(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, _)| key.as_str())
}

/// The candidate that differs from `word` by a slip or two, if any.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 2.max(word.chars().count() / 3);
    candidates
        .map(|c| (strsim::damerau_levenshtein(&word.to_lowercase(), c), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
