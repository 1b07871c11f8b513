//! Configuration: what may be set, from where it comes, and what is in force.

mod check;
mod mqtt;
mod schema;
mod show;
mod suggest;
mod tree;
mod units;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use mqtt::{Anonymous, Mqtt, PublishDenied};
pub use schema::*;
pub(crate) use suggest::nearest;
pub use tree::Origin;
use tree::{Content, Tree};
pub use units::{Addresses, ByteSize, Memory, Period, Secret};

/// Environment variables that begin so set the key that follows: `PORTOLAN__LIMITS__FRAME_MAX`.
const ENVIRONMENT: &str = "PORTOLAN__";

/// Where to look for settings, in rising order of precedence.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment; variables that are not ours are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Each a `section.key=value`.
    pub settings: Vec<String>,
    /// Shorthand for `node.data_dir`.
    pub data_dir: Option<PathBuf>,
}

/// A configuration and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    written: Tree,
}

/// Something that is wrong with the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands, when it stands anywhere.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Problem {
    fn at(origin: &Origin, message: impl Into<String>) -> Self {
        let origin = (*origin != Origin::Default).then(|| origin.clone());
        Self { origin, message: message.into() }
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// Everything that is wrong with it, at least as far as the first stage that found something.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let shape = Tree::of(as_value(&Config::shape())?, &Origin::Default);
    let mut problems = Vec::new();
    let mut written = Tree::empty();
    for layer in layers(sources, &shape) {
        match layer {
            Ok(tree) => written.merge(tree),
            Err(problem) => problems.push(problem),
        }
    }
    let unknown = suggest::unknown_keys(&written, &shape);
    problems.extend(unknown.into_iter().map(|u| Problem::at(written.origin_of(&u.path), u.message)));
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut config: Config = serde_path_to_error::deserialize(written.value()).map_err(|error| {
        let path = error.path().to_string().replace('[', ".").replace(']', "");
        vec![Problem::at(written.origin_of(&path), format!("`{}`: {}", error.path(), error.inner().message()))]
    })?;
    config.admit_guest();
    let wrong: Vec<Problem> = check::wrong_values(&config)
        .into_iter()
        .map(|wrong| Problem::at(written.origin_of(&wrong.path), wrong.to_string()))
        .collect();
    if wrong.is_empty() { Ok(Loaded { config, written }) } else { Err(wrong) }
}

impl Loaded {
    /// Everything in force as TOML, each value with where it came from; passwords are left out.
    pub fn show(&self) -> String {
        // Serialising the configuration cannot fail for a value that was read from TOML; an empty text would show
        // a mistake of ours there.
        let mut tree = as_value(&self.config).map_or_else(|_| Tree::empty(), |v| Tree::of(v, &Origin::Default));
        tree.take_origins(&self.written);
        show::toml(&tree)
    }

    /// How many keys were set by anything but a default.
    pub fn keys_set(&self) -> usize {
        self.written.leaves()
    }

    /// What works but should be otherwise.
    pub fn advice(&self) -> Vec<Problem> {
        let plain = self.config.users.iter().enumerate().filter(|(_, user)| user.password.is_some());
        plain
            .map(|(number, user)| (self.written.origin_of(&format!("users.{number}.password")), user))
            .filter(|(origin, _)| matches!(origin, Origin::File { .. }))
            .map(|(origin, user)| {
                let message = format!(
                    "the password of user `{}` stands here in plain; put the output of `portolan hash-password` \
                     into `password_hash` instead",
                    user.name
                );
                Problem::at(origin, message)
            })
            .collect()
    }
}

impl Tree {
    /// Marks with their origins the values that `written` also has.
    fn take_origins(&mut self, written: &Tree) {
        self.origin = written.origin.clone();
        match &mut self.content {
            Content::Table(entries) => {
                for (key, tree) in entries {
                    if let Some(written) = written.get(key) {
                        tree.take_origins(written);
                    }
                }
            }
            Content::List(items) => {
                for (number, tree) in items.iter_mut().enumerate() {
                    if let Some(written) = written.get(&number.to_string()) {
                        tree.take_origins(written);
                    }
                }
            }
            Content::Scalar(_) => {}
        }
    }
}

fn as_value(config: &Config) -> Result<toml::Value, Vec<Problem>> {
    toml::Value::try_from(config)
        .map_err(|e| vec![Problem { origin: None, message: format!("cannot express the configuration: {e}") }])
}

/// Each source as a tree, in rising order.
fn layers(sources: &Sources, shape: &Tree) -> Vec<Result<Tree, Problem>> {
    let file = sources.file.as_deref().map(read_file);
    let environment = sources.environment.iter().filter_map(|(name, value)| variable(name, value, shape));
    let settings = sources.settings.iter().map(|text| setting(text, shape));
    let data_dir = sources.data_dir.as_deref().map(data_dir);
    file.into_iter().chain(environment).chain(settings).chain(data_dir).collect()
}

fn read_file(path: &Path) -> Result<Tree, Problem> {
    let file: Arc<Path> = path.into();
    let text = std::fs::read_to_string(path).map_err(|e| Problem {
        origin: None,
        message: format!("cannot read the configuration file {}: {e}", path.display()),
    })?;
    Tree::parse(&text, &file)
        .map_err(|(line, message)| Problem::at(&Origin::File { file: file.clone(), line }, message))
}

fn variable(name: &OsString, value: &OsString, shape: &Tree) -> Option<Result<Tree, Problem>> {
    let name = name.to_str()?;
    let path = name.strip_prefix(ENVIRONMENT)?.to_lowercase();
    let path: Vec<&str> = path.split("__").collect();
    let origin = Origin::Environment(name.into());
    Some(match value.to_str() {
        Some(text) => Ok(Tree::at(&path, typed(&path, text, shape), &origin)),
        None => Err(Problem::at(&origin, "the value is not valid UTF-8")),
    })
}

fn setting(text: &str, shape: &Tree) -> Result<Tree, Problem> {
    let origin = Origin::Setting(text.into());
    let Some((path, value)) = text.split_once('=') else {
        return Err(Problem::at(&origin, "write it as --set section.key=value"));
    };
    let path: Vec<&str> = path.trim().split('.').collect();
    Ok(Tree::at(&path, typed(&path, value.trim(), shape), &origin))
}

fn data_dir(path: &Path) -> Result<Tree, Problem> {
    match path.to_str() {
        Some(text) => Ok(Tree::at(&["node", "data_dir"], text.into(), &Origin::DataDir)),
        None => Err(Problem::at(&Origin::DataDir, "the path is not valid UTF-8")),
    }
}

/// A value from a place that has only text: TOML where it is, else the text itself. Where the key holds text, what
/// merely looks like a number stays text, so that a password or a name may consist of digits.
fn typed(path: &[&str], text: &str, shape: &Tree) -> toml::Value {
    let known = path.iter().try_fold(shape, |tree, step| tree.get(step));
    let holds_text = matches!(known.map(|k| &k.content), Some(Content::Scalar(toml::Value::String(_))));
    if holds_text && !text.starts_with(['"', '\'']) {
        return text.into();
    }
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    match parsed.ok().and_then(|mut table| if table.len() == 1 { table.remove("value") } else { None }) {
        Some(value) => value,
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
