//! Mosquitto's ACL files: who may publish and get which topics, read from lines of `topic`, `user` and `pattern`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use portolan_mqtt::topic;

/// Bytes of a file; beyond that it is not one of rules.
const LARGEST: u64 = 64 << 20;

/// What a client does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Gets a message.
    Read,
    /// Publishes one.
    Write,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    /// The user's name, `None` for a client that gave none.
    pub(crate) user: Option<&'a str>,
    /// The client's id.
    pub(crate) client: &'a str,
}

/// The rules of a file. What none of them allows is denied.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acl {
    anonymous: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    patterns: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    grants: Grants,
    filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grants {
    Read,
    Write,
    Both,
    /// Nothing, whatever other rules say.
    Deny,
}

impl Grants {
    fn allows(self, way: Way) -> bool {
        matches!((self, way), (Self::Both, _) | (Self::Read, Way::Read) | (Self::Write, Way::Write))
    }
}

impl Acl {
    /// Reads a file; the error is for the operator.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
        let size = fs::metadata(path).map_err(|error| cannot(&error))?.len();
        if size > LARGEST {
            return Err(cannot(&"it is larger than 64 MiB"));
        }
        let text = fs::read_to_string(path).map_err(|error| cannot(&error))?;
        Self::parse(&text).map_err(|(line, message)| format!("{}:{line}: {message}", path.display()))
    }

    /// Reads rules; the error is a line and what is wrong there.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut acl = Self::default();
        let mut user: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |message: String| (number + 1, message);
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "user" if !rest.is_empty() => {
                    acl.users.entry(rest.to_owned()).or_default();
                    user = Some(rest.to_owned());
                }
                "user" => return Err(at("`user` wants a name".to_owned())),
                "topic" => {
                    let rule = Rule::parse(rest, false).map_err(at)?;
                    match &user {
                        Some(user) => acl.users.entry(user.clone()).or_default().push(rule),
                        None => acl.anonymous.push(rule),
                    }
                }
                "pattern" => acl.patterns.push(Rule::parse(rest, true).map_err(at)?),
                other => return Err(at(format!("`{other}` is none of topic, user and pattern"))),
            }
        }
        Ok(acl)
    }

    /// Whether a client may. Denials count before grants, and what is said of the user before what is said of all, as
    /// in Mosquitto.
    pub(crate) fn allows(&self, who: Who<'_>, topic: &str, way: Way) -> bool {
        let own = match who.user {
            Some(user) => self.users.get(user).map_or(&[][..], Vec::as_slice),
            None => &self.anonymous,
        };
        let verdict = decide(own, way, |rule| topic::matches(&rule.filter, topic));
        verdict.or_else(|| decide(&self.patterns, way, |rule| rule.matches_for(who, topic))).unwrap_or(false)
    }
}

fn decide(rules: &[Rule], way: Way, matches: impl Fn(&Rule) -> bool) -> Option<bool> {
    if rules.iter().any(|rule| rule.grants == Grants::Deny && matches(rule)) {
        return Some(false);
    }
    rules.iter().any(|rule| rule.grants.allows(way) && matches(rule)).then_some(true)
}

impl Rule {
    /// What stands behind `topic` or `pattern`.
    fn parse(text: &str, pattern: bool) -> Result<Self, String> {
        let (grants, filter) = match text.split_once(char::is_whitespace) {
            // A filter may hold spaces when its access is named.
            Some((word, filter)) => (Self::grants(word)?, filter.trim_start()),
            None => (Grants::Both, text),
        };
        let tried = if pattern { filter.replace("%c", "x").replace("%u", "x") } else { filter.to_owned() };
        topic::check_filter(&tried).map_err(|bad| format!("`{filter}`: {bad}"))?;
        Ok(Self { grants, filter: filter.to_owned() })
    }

    fn grants(word: &str) -> Result<Grants, String> {
        match word {
            "read" => Ok(Grants::Read),
            "write" => Ok(Grants::Write),
            "readwrite" => Ok(Grants::Both),
            "deny" => Ok(Grants::Deny),
            other => Err(format!("`{other}` is none of read, write, readwrite and deny")),
        }
    }

    /// Matches a pattern with the client's id and user name filled in. A name that would change the filter's form gets
    /// nothing by the pattern, and is denied whatever the pattern denies to anybody.
    fn matches_for(&self, who: Who<'_>, topic: &str) -> bool {
        let (by_client, by_user) = (self.filter.contains("%c"), self.filter.contains("%u"));
        if !by_client && !by_user {
            return topic::matches(&self.filter, topic);
        }
        let unfit = |name: &str| name.is_empty() || name.contains(['+', '#', '/']);
        if (by_client && unfit(who.client)) || (by_user && who.user.is_none_or(unfit)) {
            return self.grants == Grants::Deny;
        }
        topic::matches(&fill(&self.filter, who), topic)
    }
}

/// One pass, so that a client called `%u` gets no other user's name.
fn fill(filter: &str, who: Who<'_>) -> String {
    let mut filled = String::with_capacity(filter.len() + who.client.len());
    let mut rest = filter;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let value = match from.as_bytes().get(1) {
            Some(b'c') => Some(who.client),
            Some(b'u') => who.user,
            _ => None,
        };
        filled.push_str(value.unwrap_or("%"));
        rest = &from[if value.is_some() { 2 } else { 1 }..];
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Sensors
topic read public/#
topic deny public/secret

user ada
topic readwrite plant/+/temp
topic write  with space/a b
topic deny plant/9/temp
user bob
topic read #

pattern readwrite home/%u/%c/#
pattern write up-%c
pattern deny vault/%c
";

    fn who<'a>(user: &'a str, client: &'a str) -> Who<'a> {
        Who { user: Some(user).filter(|user| !user.is_empty()), client }
    }

    #[test]
    fn rules_are_followed_as_mosquitto_does() {
        let acl = Acl::parse(FILE).unwrap();
        for (user, client, topic, read, write) in [
            ("", "c", "public/a", true, false),
            ("", "c", "public/secret", false, false),
            ("", "c", "plant/1/temp", false, false),
            ("ada", "c", "public/a", false, false),
            ("ada", "c", "plant/1/temp", true, true),
            ("ada", "c", "plant/9/temp", false, false),
            ("ada", "c", "with space/a b", false, true),
            ("bob", "c", "any/thing", true, false),
            ("bob", "c", "$SYS/broker/version", false, false),
            ("ada", "c", "home/ada/c/lamp", true, true),
            ("ada", "d", "home/ada/c/lamp", false, false),
            ("", "c", "home//c/lamp", false, false),
            ("ada", "7", "up-7", false, true),
            ("ada", "7", "vault/7", false, false),
            ("eve", "c", "plant/1/temp", false, false),
        ] {
            let found =
                (acl.allows(who(user, client), topic, Way::Read), acl.allows(who(user, client), topic, Way::Write));
            assert_eq!(found, (read, write), "{user} {client} {topic}");
        }
    }

    #[test]
    fn names_with_wildcards_gain_nothing_and_escape_nothing() {
        let acl = Acl::parse("pattern readwrite a/%c/b\npattern read u/%u\npattern deny a/x/b\n").unwrap();
        for client in ["+", "#", "x/y", "a#"] {
            assert!(!acl.allows(who("u", client), "a/z/b", Way::Read), "{client}");
        }
        assert!(!acl.allows(who("+", "c"), "u/other", Way::Read));
        assert!(acl.allows(who("%c", "%u"), "a/%u/b", Way::Write), "names are not filled in again");
        let acl = Acl::parse("pattern readwrite #\npattern deny own/%c\n").unwrap();
        assert!(!acl.allows(who("u", "a/b"), "own/other", Way::Read));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, message) in [
            ("topic a\n\ntopics b\n", 3, "`topics` is none of"),
            ("user\n", 1, "wants a name"),
            ("topic reed a\n", 1, "`reed` is none of read"),
            ("#\ntopic read a/#/b\n", 2, "`a/#/b`: #"),
            ("pattern write a%c+\n", 1, "+ must be"),
            ("topic\n", 1, "empty"),
        ] {
            let (found, told) = Acl::parse(text).unwrap_err();
            assert!(found == line && told.contains(message), "{text}: {found} {told}");
        }
        let told = Acl::load(Path::new("no/such/file")).unwrap_err();
        assert!(told.starts_with("cannot read no/such/file: "), "{told}");
    }
}
