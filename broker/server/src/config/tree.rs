//! Configuration as written: a tree of values, each of which remembers where it came from.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as it was named to us.
        file: Arc<Path>,
        /// Its line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// A `--set`, as written.
    Setting(Arc<str>),
    /// `--data-dir`.
    DataDir,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            // Without its value, which may be a password.
            Self::Setting(text) => write!(f, "--set {}", text.split('=').next().unwrap_or_default()),
            Self::DataDir => f.write_str("--data-dir"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) content: Content,
    pub(super) origin: Origin,
}

/// What a [`Tree`] holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar(toml::Value),
    List(Vec<Tree>),
    Table(Vec<(String, Tree)>),
}

impl Tree {
    /// A table without keys.
    pub(super) fn empty() -> Self {
        Self { content: Content::Table(Vec::new()), origin: Origin::Default }
    }

    /// A value all of which came from one place.
    pub(super) fn of(value: toml::Value, origin: &Origin) -> Self {
        let content = match value {
            toml::Value::Table(table) => {
                Content::Table(table.into_iter().map(|(key, value)| (key, Self::of(value, origin))).collect())
            }
            toml::Value::Array(items) => Content::List(items.into_iter().map(|i| Self::of(i, origin)).collect()),
            scalar => Content::Scalar(scalar),
        };
        Self { content, origin: origin.clone() }
    }

    /// A table with one value at `path`.
    pub(super) fn at(path: &[&str], value: toml::Value, origin: &Origin) -> Self {
        let mut tree = Self::of(value, origin);
        for key in path.iter().rev() {
            tree = Self { content: Content::Table(vec![((*key).to_owned(), tree)]), origin: origin.clone() };
        }
        tree
    }

    /// Reads a file's text; the error is a line and what is wrong there.
    pub(super) fn parse(text: &str, file: &Arc<Path>) -> Result<Self, (usize, String)> {
        let source = Source { text, file };
        let table =
            DeTable::parse(text).map_err(|e| (source.line(e.span().map_or(0, |s| s.start)), e.message().to_owned()))?;
        Ok(source.table(table.get_ref(), 0))
    }

    /// Lays `over` on top: tables are merged, anything else is replaced.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.content, over.content) {
            (Content::Table(mine), Content::Table(theirs)) => {
                for (key, tree) in theirs {
                    match mine.iter_mut().find(|(k, _)| *k == key) {
                        Some((_, existing)) => existing.merge(tree),
                        None => mine.push((key, tree)),
                    }
                }
            }
            (mine, theirs) => {
                *mine = theirs;
                self.origin = over.origin;
            }
        }
    }

    /// The value of a table's key, or a list's item by its number.
    pub(super) fn get(&self, step: &str) -> Option<&Self> {
        match &self.content {
            Content::Table(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, tree)| tree),
            Content::List(items) => items.get(step.parse::<usize>().ok()?),
            Content::Scalar(_) => None,
        }
    }

    /// Where the value at a path with dots came from, or the nearest thing around it.
    pub(super) fn origin_of(&self, path: &str) -> &Origin {
        let mut here = self;
        for step in path.split('.') {
            match here.get(step) {
                Some(next) => here = next,
                None => break,
            }
        }
        &here.origin
    }

    /// Without the origins.
    pub(super) fn value(&self) -> toml::Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => toml::Value::Array(items.iter().map(Self::value).collect()),
            Content::Table(entries) => {
                toml::Value::Table(entries.iter().map(|(key, tree)| (key.clone(), tree.value())).collect())
            }
        }
    }

    /// How many values were set.
    pub(super) fn leaves(&self) -> usize {
        match &self.content {
            Content::Scalar(_) => 1,
            Content::List(items) if items.iter().all(|i| matches!(i.content, Content::Scalar(_))) => 1,
            Content::List(items) => items.iter().map(Self::leaves).sum(),
            Content::Table(entries) => entries.iter().map(|(_, tree)| tree.leaves()).sum(),
        }
    }
}

/// The file being read.
struct Source<'a> {
    text: &'a str,
    file: &'a Arc<Path>,
}

impl Source<'_> {
    fn line(&self, byte: usize) -> usize {
        self.text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count() + 1
    }

    fn tree(&self, content: Content, byte: usize) -> Tree {
        Tree { content, origin: Origin::File { file: self.file.clone(), line: self.line(byte) } }
    }

    fn table(&self, table: &DeTable<'_>, byte: usize) -> Tree {
        // By the key's place, not the value's: a section made by `[limits]` has its keys far apart.
        let entries =
            table.iter().map(|(key, value)| (key.get_ref().to_string(), self.item(value, key.span().start))).collect();
        self.tree(Content::Table(entries), byte)
    }

    fn item(&self, value: &Spanned<DeValue<'_>>, byte: usize) -> Tree {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, byte),
            DeValue::Array(items) => {
                let items = items.iter().map(|i| self.item(i, i.span().start)).collect();
                self.tree(Content::List(items), byte)
            }
            scalar => self.tree(Content::Scalar(plain(scalar)), byte),
        }
    }
}

/// A scalar without its place. A number too big for TOML becomes text, which no key that wants a number accepts.
fn plain(scalar: &DeValue<'_>) -> toml::Value {
    match scalar {
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(number) => toml::Value::Integer(number),
            Err(_) => toml::Value::String(n.to_string()),
        },
        DeValue::Float(n) => match n.as_str().parse() {
            Ok(number) => toml::Value::Float(number),
            Err(_) => toml::Value::String(n.to_string()),
        },
        DeValue::Boolean(yes) => toml::Value::Boolean(*yes),
        DeValue::Datetime(at) => toml::Value::Datetime(*at),
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => toml::Value::Boolean(false),
    }
}
