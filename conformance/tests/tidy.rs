//! Holds the shape of the tree: which crate may name which, what core may not touch, how long a file may be.
#![allow(clippy::unwrap_used)] // a manifest that cannot be read is a failed test

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this holds more than one concept.
const MOST_LINES: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every member of the workspace, as its folder below the root.
fn members() -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

/// The names a member depends on, its tests and build script included.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest: toml::Table = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
    let mut tables: Vec<&toml::Table> = vec![&manifest];
    tables.extend(manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|targets| {
        targets.values().filter_map(toml::Value::as_table) // [target.'cfg(…)'.dependencies]
    }));
    let mut names = BTreeSet::new();
    for table in tables {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (key, value) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let renamed = value.get("package").and_then(toml::Value::as_str);
                names.insert(renamed.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

/// What stands where in the layering.
fn layer(member: &str) -> &'static str {
    match member {
        "broker/core" => "core",
        "broker/server" => "server",
        "storage" => "storage",
        protocol if protocol.starts_with("protocols/") => "protocol",
        leaf if leaf.starts_with("conformance") || leaf == "examples" => "leaf",
        other => panic!("{other} has no place in the layering yet; give it one here"),
    }
}

/// The layer of a crate of ours, by its package name.
fn layer_of_package(name: &str) -> Option<&'static str> {
    members().iter().find_map(|member| {
        let manifest: toml::Table =
            fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
        (manifest["package"]["name"].as_str() == Some(name)).then(|| layer(member))
    })
}

/// Rust files of a member, except its tests and benches, with their text.
fn sources(member: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let member = root().join(member);
    // The examples have a folder for each language.
    let mut folders =
        vec![[member.join("src"), member.join("rust")].into_iter().find(|folder| folder.is_dir()).unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Each line that names one of the words, as `file:line: word`.
fn mentions(member: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(member) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    found
}

#[track_caller]
fn nothing(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn arrows_point_inwards() {
    let mut wrong = Vec::new();
    for member in members() {
        let allowed: &[&str] = match layer(&member) {
            "core" => &[],
            "storage" | "protocol" => &["core"],
            "server" => &["core", "storage", "protocol"],
            _ => &["core", "storage", "protocol", "server", "leaf"],
        };
        for name in dependencies(&member) {
            if layer_of_package(&name).is_some_and(|layer| !allowed.contains(&layer)) {
                wrong.push(format!("{member} -> {name}"));
            }
        }
    }
    nothing(&wrong, "server -> {protocols, storage} -> core, and nothing else");
}

#[test]
fn core_has_no_sockets_no_disk_and_no_runtime() {
    let forbidden = ["tokio", "socket2", "rustix", "libc", "sled", "axum", "hyper", "mio"];
    let named: Vec<String> =
        dependencies("broker/core").into_iter().filter(|name| forbidden.contains(&name.as_str())).collect();
    nothing(&named, "core depends on none of these");
}

#[test]
fn core_has_no_clock_and_does_no_io() {
    let words = ["std::net", "std::fs", "std::thread::sleep", "Instant::now", "SystemTime::now", "tokio::"];
    nothing(&mentions("broker/core", &words), "time and bytes come to core as arguments");
}

#[test]
fn protocols_are_sans_io() {
    let words = ["std::net", "std::fs", "thread::spawn", "thread::sleep", "Instant::now", "SystemTime::now", "tokio::"];
    for member in members().iter().filter(|member| layer(member) == "protocol") {
        nothing(&mentions(member, &words), "an engine is driven by its transport");
    }
}

#[test]
fn storage_knows_no_runtime() {
    let named: Vec<String> = dependencies("storage").into_iter().filter(|name| name == "tokio").collect();
    nothing(&named, "storage depends on no async runtime");
}

#[test]
fn files_say_what_they_hold_and_stay_short() {
    let mut wrong = Vec::new();
    for member in members() {
        for (path, text) in sources(&member) {
            let lines = text.lines().count();
            if !text.starts_with("//!") {
                wrong.push(format!("{} does not open with a //! sentence", path.display()));
            }
            if lines > MOST_LINES {
                wrong.push(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    nothing(&wrong, "a file opens with what it holds, and holds one thing");
}

#[test]
fn the_lock_file_and_the_scripts_name_no_private_registry() {
    let mut wrong = Vec::new();
    let lock = fs::read_to_string(root().join("conformance/js/package-lock.json")).unwrap();
    if lock.contains("\"resolved\"") {
        wrong.push("conformance/js/package-lock.json records where packages came from".to_owned());
    }
    nothing(&wrong, "anyone's registry serves");
}
