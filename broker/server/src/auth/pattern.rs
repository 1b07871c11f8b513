//! Permission patterns: RabbitMQ's regular expressions, bounded in size and time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use regex::bytes::{Regex, RegexBuilder};

/// Compiled size that one pattern may have. Generous for a list of names, and it bounds what a configuration with
/// thousands of users can take.
const SIZE_LIMIT: usize = 1 << 20;

/// What a permission allows: a regular expression, not anchored, of which two forms are so common that they need no
/// matching.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// Matches nothing that has a name.
    Nothing,
    /// Matches everything.
    Everything,
    /// Ask the expression.
    Matching(Regex),
}

impl Pattern {
    /// Compiles a pattern; the error is for the operator.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            // RabbitMQ takes the empty pattern for `^$`, not for the regular expression that matches everything.
            "" | "^$" => Ok(Self::Nothing),
            ".*" | "^.*" | ".*$" | "^.*$" | "^(.*)$" => Ok(Self::Everything),
            _ => {
                let regex = RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
                regex.map(Self::Matching).map_err(|error| explain(text, &error))
            }
        }
    }

    /// Whether it allows that name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Matching(regex) => regex.is_match(name),
        }
    }
}

fn explain(text: &str, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!("the pattern is too large: {} bytes", text.len()),
        // Look-around and back-references, which PCRE has, would let a pattern take unbounded time.
        error => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("`{text}` is not a regular expression that can be used here: {reason}")
        }
    }
}

/// Stands for the id of the connection's client.
const CLIENT: &str = "{client_id}";
/// Patterns with a client's id in them that are kept compiled.
const KEPT: usize = 1024;

/// Replaces `{username}`, `{vhost}` and `{client_id}` in a topic permission. Their values are taken literally: a user
/// called `.*` gains nothing by it.
pub(crate) fn fill_in(pattern: &str, user: &str, vhost: &str, client: &str) -> String {
    fill_in_client(&fill_in_user(pattern, user, vhost), client)
}

fn fill_in_user(pattern: &str, user: &str, vhost: &str) -> String {
    // A name with braces would be filled in again: in an expression, they can be written otherwise.
    let literal = |name: &str| regex::escape(name).replace("\\{", "\\x7b").replace("\\}", "\\x7d");
    pattern.replace("{username}", &literal(user)).replace("{vhost}", &literal(vhost))
}

fn fill_in_client(pattern: &str, client: &str) -> String {
    pattern.replace(CLIENT, &regex::escape(client))
}

/// A topic permission of one user in one vhost.
pub(super) enum TopicPattern {
    /// The same for all clients.
    Fixed(Pattern),
    /// To be filled in with the client's id. Connections do not keep what comes of it: ten thousand compiled
    /// expressions take more than their connections.
    ByClient(String, Arc<Compiled>),
}

/// Some expressions that were compiled lately.
#[derive(Default)]
pub(super) struct Compiled(Mutex<HashMap<String, Pattern>>);

impl TopicPattern {
    /// Reads a permission; the error is for the operator.
    pub(super) fn parse(text: &str, user: &str, vhost: &str, compiled: &Arc<Compiled>) -> Result<Self, String> {
        let text = fill_in_user(text, user, vhost);
        if !text.contains(CLIENT) {
            return Pattern::parse(&text).map(Self::Fixed);
        }
        Pattern::parse(&fill_in_client(&text, ""))?;
        Ok(Self::ByClient(text, Arc::clone(compiled)))
    }

    /// Its answer depends on the client's id.
    pub(super) fn by_client(&self) -> bool {
        matches!(self, Self::ByClient(..))
    }

    /// Whether it allows that key to that client. Without an id nothing is allowed that depends on it.
    pub(super) fn matches(&self, key: &[u8], client: Option<&str>) -> bool {
        match (self, client) {
            (Self::Fixed(pattern), _) => pattern.matches(key),
            (Self::ByClient(..), None) => false,
            (Self::ByClient(text, compiled), Some(client)) => compiled.get(fill_in_client(text, client)).matches(key),
        }
    }
}

impl Compiled {
    fn get(&self, text: String) -> Pattern {
        if let Some(known) = self.0.lock().get(&text) {
            return known.clone();
        }
        // One that a long id has made too large allows nothing.
        let pattern = Pattern::parse(&text).unwrap_or(Pattern::Nothing);
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(text, pattern.clone());
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matches: &[&str], misses: &[&str]) {
        let compiled = Pattern::parse(pattern).unwrap();
        for name in matches {
            assert!(compiled.matches(name.as_bytes()), "`{pattern}` allows {name}");
        }
        for name in misses {
            assert!(!compiled.matches(name.as_bytes()), "`{pattern}` refuses {name}");
        }
    }

    #[test]
    fn empty_is_nothing() {
        check("", &[], &["", "a", "amq.default"]);
        check("^$", &[], &["a", "amq.default"]);
    }

    #[test]
    fn dot_star_is_everything() {
        for pattern in [".*", "^.*$", "^(.*)$"] {
            check(pattern, &["a", "amq.gen-x", "a\nb"], &[]);
        }
    }

    #[test]
    fn patterns_are_not_anchored() {
        check("orders", &["orders", "my-orders-2"], &["order"]);
        check("^orders", &["orders", "orders-2"], &["my-orders"]);
        check("^(amq\\.default|jobs-.*)$", &["amq.default", "jobs-1"], &["amq-default", "my-jobs-1"]);
    }

    #[test]
    fn what_could_run_for_ever_is_refused() {
        for pattern in ["(?=a)", "(a)\\1", "[", "(a{1000}){1000}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn values_are_filled_in_literally() {
        let pattern = fill_in("^{vhost}\\.{username}\\.{client_id}$", "a.b", "/", "x+");
        check(&pattern, &["/.a.b.x+"], &["/.axb.x+", "/.a.b.xx"]);
        let pattern = fill_in("^{username}$", "{vhost}{client_id}", "v", "c");
        check(&pattern, &["{vhost}{client_id}"], &["vc", "v{client_id}"]);
    }

    #[test]
    fn a_clients_own_pattern_is_its_own() {
        let compiled = Arc::default();
        let pattern = TopicPattern::parse("^{username}\\.{client_id}\\.", "u", "/", &compiled).unwrap();
        assert!(pattern.by_client());
        for client in ["a", "b.*", "a"] {
            let key = format!("u.{client}.x");
            assert!(pattern.matches(key.as_bytes(), Some(client)) && !pattern.matches(b"u.c.x", Some(client)));
        }
        assert!(!pattern.matches(b"u..x", None), "no id, no right");
        for number in 0..2 * KEPT {
            pattern.matches(b"u", Some(&number.to_string()));
        }
        assert!(compiled.0.lock().len() <= KEPT);
        assert!(!pattern.matches(b"u.a.x", Some(&"x".repeat(1 << 20))), "too large an expression");
    }
}
