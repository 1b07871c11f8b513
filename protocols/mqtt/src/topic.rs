//! Topic names and filters: what is valid, what matches, and what they are called where AMQP reads them.

/// Why a topic filter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFilter {
    /// It has no character.
    Empty,
    /// It holds U+0000.
    Nul,
    /// It has more than 65 535 bytes.
    TooLong,
    /// `#` is not a whole level, or not the last one.
    Hash,
    /// `+` is not a whole level.
    Plus,
    /// It starts like a shared subscription and does not go on like one.
    Share,
}

impl BadFilter {
    /// What to change; fit to be a reason string.
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "a topic filter is empty",
            Self::Nul => "a topic filter holds U+0000",
            Self::TooLong => "a topic filter has more than 65535 bytes",
            Self::Hash => "# must be the whole last level of a topic filter",
            Self::Plus => "+ must be a whole level of a topic filter",
            Self::Share => "write a shared subscription as $share/group/filter, the group without / + #",
        }
    }
}

impl std::fmt::Display for BadFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for BadFilter {}

/// Longest topic name or filter (MQTT-4.7.3-3).
pub const MAX_LENGTH: usize = 65_535;

/// Whether a text can be the topic of a message (MQTT-4.7.1-1, MQTT-4.7.3-1 to -3).
pub fn is_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= MAX_LENGTH && !topic.contains(['\0', '+', '#'])
}

/// Levels of a name or filter; the caller knows how many it allows.
pub fn levels(text: &str) -> usize {
    1 + text.bytes().filter(|byte| *byte == b'/').count()
}

/// Whether a text can be a topic filter (MQTT-4.7.1-2, -3, MQTT-4.7.3-1 to -3); `$share` and `$queue` are levels
/// like others here.
pub fn check_filter(filter: &str) -> Result<(), BadFilter> {
    if filter.is_empty() {
        return Err(BadFilter::Empty);
    }
    if filter.len() > MAX_LENGTH {
        return Err(BadFilter::TooLong);
    }
    if filter.contains('\0') {
        return Err(BadFilter::Nul);
    }
    let mut ended = false;
    for level in filter.split('/') {
        if ended || (level.contains('#') && level != "#") {
            return Err(BadFilter::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(BadFilter::Plus);
        }
        ended = level == "#";
    }
    Ok(())
}

/// With whom a subscription shares its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share<'a> {
    /// With nobody.
    No,
    /// `$share/<group>/<filter>`
    Group(&'a str),
    /// `$queue/<filter>`, EMQX's group without a name.
    Queue,
}

/// What a client subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription<'a> {
    /// With whom.
    pub share: Share<'a>,
    /// The filter that topics are held against.
    pub filter: &'a str,
}

impl<'a> Subscription<'a> {
    /// Takes a text apart (MQTT5-4.8.2-1, -2).
    pub fn parse(text: &'a str) -> Result<Self, BadFilter> {
        check_filter(text)?;
        if let Some(filter) = text.strip_prefix(QUEUE) {
            return Self::shared(Share::Queue, filter);
        }
        let Some(shared) = text.strip_prefix(SHARE) else { return Ok(Self { share: Share::No, filter: text }) };
        match shared.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => {
                Self::shared(Share::Group(group), filter)
            }
            _ => Err(BadFilter::Share),
        }
    }

    fn shared(share: Share<'a>, filter: &'a str) -> Result<Self, BadFilter> {
        match filter {
            "" => Err(BadFilter::Share),
            _ => Ok(Self { share, filter }),
        }
    }
}

const SHARE: &str = "$share/";
const QUEUE: &str = "$queue/";

/// Whether a filter is meant as a shared subscription, well written or not.
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE) || filter.starts_with(QUEUE)
}

/// Whether a valid topic is one of those that a valid filter means (4.7.1, 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    !hidden(filter, topic) && matches_levels(filter, topic)
}

/// MQTT-4.7.2-1: a wildcard at the start does not stand for a first level that starts with `$`.
pub fn hidden(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && filter.starts_with(['+', '#'])
}

fn matches_levels(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for wanted in filter.split('/') {
        // 4.7.1.2: the level above it is meant too.
        if wanted == "#" {
            return true;
        }
        match topic.next() {
            Some(level) if wanted == "+" || wanted == level => (),
            _ => return false,
        }
    }
    topic.next().is_none()
}

/// Appends the AMQP routing key of a topic name, or the binding key of a topic filter.
///
/// `/` and `.` change places, so that levels are words; so do the wildcard `+` and `*`, which is a letter like any
/// other in MQTT and would be a wildcard in AMQP. `#` means the same in both. As a name holds neither `+` nor `#`,
/// nothing is lost: [`append_topic`] is the way back.
pub fn append_key(topic: &str, key: &mut Vec<u8>) {
    key.extend(topic.bytes().map(|byte| match byte {
        b'/' => b'.',
        b'.' => b'/',
        b'+' => b'*',
        b'*' => b'+',
        other => other,
    }));
}

/// Whether a key has a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Its topic leads back to it.
    Exact,
    /// Something in it cannot be in a topic name, and U+FFFD stands in its place.
    Replaced,
}

/// Appends the topic name of an AMQP routing key.
///
/// No topic holds what would become `+` or `#`, nor U+0000, nor bytes that are not UTF-8, and none is empty: there
/// U+FFFD is put, and the answer says so.
pub fn append_topic(key: &[u8], topic: &mut String) -> Fit {
    let mut fit = Fit::Exact;
    for chunk in key.utf8_chunks() {
        for piece in chunk.valid().split_inclusive(['/', '.', '+', '*', '#', '\0']) {
            let mut plain = piece.chars();
            let swapped = match plain.next_back() {
                Some('.') => '/',
                Some('/') => '.',
                Some('+') => '*',
                Some('*' | '#' | '\0') => {
                    fit = Fit::Replaced;
                    char::REPLACEMENT_CHARACTER
                }
                _ => {
                    topic.push_str(piece);
                    continue;
                }
            };
            topic.push_str(plain.as_str());
            topic.push(swapped);
        }
        if !chunk.invalid().is_empty() {
            fit = Fit::Replaced;
            topic.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if key.is_empty() {
        fit = Fit::Replaced;
        topic.push(char::REPLACEMENT_CHARACTER);
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::exchange::Destination;
    use portolan_core::topic::TopicTrie;
    use proptest::prelude::*;

    #[track_caller]
    fn check(filter: &str, hits: &[&str], misses: &[&str]) {
        assert_eq!(check_filter(filter), Ok(()));
        for topic in hits {
            assert!(matches(filter, topic), "{filter} should match {topic:?}");
        }
        for topic in misses {
            assert!(!matches(filter, topic), "{filter} should not match {topic:?}");
        }
    }

    #[test]
    fn hash_is_the_rest_and_the_level_above() {
        // 4.7.1.2
        check("sport/tennis/#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"], &["sport", "sport/tennis2"]);
        check("#", &["a", "/", "a/b"], &["$SYS", "$SYS/a"]);
        check("/#", &["/", "/a", "//"], &["a"]);
    }

    #[test]
    fn plus_is_one_level_which_may_be_empty() {
        // 4.7.1.3
        check("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]);
        check("+/+", &["/finance", "/", "a/b"], &["a", "a/b/c"]);
        check("/+", &["/finance"], &["finance", "a/finance"]);
        check("+", &["finance", "*", "a.b"], &["/finance", "$SYS"]);
        check("+/a/#", &["b/a", "/a/b/c"], &["$SYS/a", "b"]);
    }

    #[test]
    fn mqtt_4_7_2_1_dollar_topics_hide_from_a_leading_wildcard() {
        check("$SYS/#", &["$SYS", "$SYS/a"], &["SYS/a"]);
        check("$SYS/+/b", &["$SYS/a/b"], &[]);
        check("a/+", &["a/$b"], &[]);
        check("+/a", &[], &["$SYS/a", "$/a"]);
    }

    #[test]
    fn mqtt_4_7_3_4_topics_are_compared_byte_by_byte() {
        check("ACCOUNTS", &["ACCOUNTS"], &["Accounts", "ACCOUNTS/"]);
        check("a.b", &["a.b"], &["a/b"]);
        check("\u{e9}", &["\u{e9}"], &["e\u{301}"]);
        check("\u{feff}a", &["\u{feff}a"], &["a"]); // MQTT-1.5.3-3
        check("a b", &["a b"], &["ab"]);
    }

    #[test]
    fn names_and_filters_have_their_form() {
        for (text, name, filter) in [
            ("", false, Err(BadFilter::Empty)),
            ("a", true, Ok(())),
            ("/", true, Ok(())),
            ("//", true, Ok(())),
            ("a\0", false, Err(BadFilter::Nul)),
            ("#", false, Ok(())),
            ("+", false, Ok(())),
            ("a/#", false, Ok(())),
            ("+/+/#", false, Ok(())),
            ("a#", false, Err(BadFilter::Hash)),
            ("#a", false, Err(BadFilter::Hash)),
            ("#/a", false, Err(BadFilter::Hash)),
            ("a/#/b", false, Err(BadFilter::Hash)),
            ("#/", false, Err(BadFilter::Hash)),
            ("a+", false, Err(BadFilter::Plus)),
            ("+a/b", false, Err(BadFilter::Plus)),
            ("++", false, Err(BadFilter::Plus)),
        ] {
            assert_eq!((is_name(text), check_filter(text)), (name, filter), "{text:?}");
        }
        let longest = "t".repeat(MAX_LENGTH);
        assert!(is_name(&longest) && check_filter(&longest).is_ok());
        let longer = "t".repeat(MAX_LENGTH + 1);
        assert!(!is_name(&longer) && check_filter(&longer) == Err(BadFilter::TooLong));
        assert_eq!((levels("a"), levels("/"), levels("a/b/#")), (1, 2, 3));
    }

    #[test]
    fn mqtt5_4_8_2_1_and_2_shared_subscriptions() {
        let read = Subscription::parse;
        let group = |group, filter| Ok(Subscription { share: Share::Group(group), filter });
        let plain = |filter| Ok(Subscription { share: Share::No, filter });
        assert_eq!(read("$share/g/a/+"), group("g", "a/+"));
        assert_eq!(read("$share/g//"), group("g", "/"));
        assert_eq!(read("$share/g/$SYS/#"), group("g", "$SYS/#"));
        assert_eq!(read("$queue/a/#"), Ok(Subscription { share: Share::Queue, filter: "a/#" }));
        for filter in ["a/b", "$share", "$queue", "$shared/a", "$queues/a", "$SYS/#"] {
            assert_eq!(read(filter), plain(filter));
        }
        for bad in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#", "$queue/"] {
            assert_eq!(read(bad), Err(BadFilter::Share), "{bad}");
        }
        assert_eq!(read("$share/g/a#"), Err(BadFilter::Hash));
        assert_eq!(read("$share/g+/a"), Err(BadFilter::Plus));
    }

    fn key_of(topic: &str) -> Vec<u8> {
        let mut key = Vec::new();
        append_key(topic, &mut key);
        key
    }

    fn topic_of(key: &[u8]) -> (String, Fit) {
        let mut topic = String::new();
        let fit = append_topic(key, &mut topic);
        (topic, fit)
    }

    #[test]
    fn keys_of_topics_and_back() {
        for (topic, key) in
            [("plant/7/temp", "plant.7.temp"), ("a.b/c", "a/b.c"), ("*/x", "+.x"), ("/", "."), ("ü", "ü")]
        {
            assert_eq!(key_of(topic), key.as_bytes());
            assert_eq!(topic_of(key.as_bytes()), (topic.to_owned(), Fit::Exact));
        }
        assert_eq!(key_of("plant/+/temp/#"), b"plant.*.temp.#");
    }

    #[test]
    fn what_no_topic_holds_is_replaced() {
        for (key, topic) in [
            (&b"a.*"[..], "a/\u{fffd}"),
            (b"#", "\u{fffd}"),
            (b"a\0b.c", "a\u{fffd}b/c"),
            (b"a.\xff.b", "a/\u{fffd}/b"),
            (b"", "\u{fffd}"),
        ] {
            assert_eq!(topic_of(key), (topic.to_owned(), Fit::Replaced));
        }
    }

    fn core_matches(pattern: &[u8], key: &[u8]) -> bool {
        let mut trie = TopicTrie::default();
        trie.edit(pattern, |targets| targets.add(Destination::Exchange("x".into())));
        let mut found = false;
        trie.matches(key, |_, _| found = true);
        found
    }

    /// Few different levels, so that many of them match.
    const TOPIC: &str = r"(|a|b|\*|\.|a\.b|\$a|ü)(/(|a|b|\*|\.|a\.b|\$a|ü)){0,4}";
    const FILTER: &str = r"(|a|b|\*|\.|a\.b|\$a|\+|ü)(/(|a|b|\*|\.|a\.b|\$a|\+|ü)){0,4}(/#)?";

    proptest! {
        #[test]
        fn every_topic_has_its_own_key(topic in any::<String>().prop_filter("a name", |text| is_name(text))) {
            prop_assert_eq!(topic_of(&key_of(&topic)), (topic, Fit::Exact));
        }

        #[test]
        fn every_key_has_a_topic_and_says_whether_it_is_its_own(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let (topic, fit) = topic_of(&key);
            prop_assert!(is_name(&topic));
            prop_assert_eq!(fit == Fit::Exact, key_of(&topic) == key);
        }

        #[test]
        fn mqtt_and_amqp_agree_but_for_dollars(filter in FILTER, topic in TOPIC) {
            prop_assume!(check_filter(&filter).is_ok() && is_name(&topic));
            let amqp = core_matches(&key_of(&filter), &key_of(&topic));
            prop_assert_eq!(matches(&filter, &topic), amqp && !hidden(&filter, &topic));
        }

        #[test]
        fn a_topic_is_its_own_filter(topic in TOPIC) {
            prop_assume!(is_name(&topic));
            prop_assert!(check_filter(&topic).is_ok() && matches(&topic, &topic));
        }

        #[test]
        fn no_text_makes_it_panic(filter: String, topic: String) {
            let _ = Subscription::parse(&filter);
            let _ = matches(&filter, &topic);
        }
    }
}
