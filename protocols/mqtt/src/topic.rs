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
