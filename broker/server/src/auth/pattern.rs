//! Permission patterns: RabbitMQ's regular expressions, bounded in size and time.

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

/// Replaces `{username}` and `{vhost}` in a topic permission. Their values are taken literally: a user called `.*`
/// gains nothing by it.
pub(crate) fn fill_in(pattern: &str, user: &str, vhost: &str) -> String {
    pattern.replace("{username}", &regex::escape(user)).replace("{vhost}", &regex::escape(vhost))
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
        let pattern = fill_in("^{vhost}\\.{username}\\.", "a.b", "/");
        check(&pattern, &["/.a.b.c"], &["/.axb.c"]);
    }
}
