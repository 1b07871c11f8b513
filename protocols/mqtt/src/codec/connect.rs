//! CONNECT, which says what version everything after it is written in.

use super::decode::{payload_is_text, topic_name};
use super::malformed::Malformed;
use super::property::{self, Id, Place, Value};
use super::reader::Reader;
use super::{Frame, Qos, Version};
use crate::reason::Reason;

/// The packet that opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Version of all that follows.
    pub version: Version,
    /// The top bit of the level is set, by which bridges of Mosquitto and VerneMQ make themselves known.
    pub bridge: bool,
    /// Clean Start; Clean Session before 5.0.
    pub clean_start: bool,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// May be empty: then the server makes one up.
    pub client_id: &'a str,
    /// What to publish when the connection ends otherwise than by DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User Name
    pub user_name: Option<&'a str>,
    /// Password, any bytes.
    pub password: Option<&'a [u8]>,
    /// Properties; the default ones before 5.0.
    pub properties: Properties<'a>,
}

/// The message of a Will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// Will Payload
    pub payload: &'a [u8],
    /// QoS to publish it with.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay: u32,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<u32>,
    /// The payload is said to be UTF-8.
    pub text: bool,
    /// All properties as they came; [`property::travelling`] is what goes with the message.
    pub properties: &'a [u8],
}

impl Will<'_> {
    /// Whether the payload is what the Payload Format Indicator says; if not, refuse with Payload format invalid.
    pub fn payload_is_as_declared(&self) -> bool {
        !self.text || payload_is_text(self.payload)
    }
}

/// The properties of CONNECT, absent ones with the value that absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties<'a> {
    /// Session Expiry Interval in seconds; `u32::MAX` for never.
    pub session_expiry: u32,
    /// PUBLISH packets of QoS 1 and 2 that the client takes at a time.
    pub receive_maximum: u16,
    /// Largest packet that the client takes.
    pub maximum_packet_size: Option<u32>,
    /// Highest topic alias that the client takes.
    pub topic_alias_maximum: u16,
    /// Whether CONNACK may bring Response Information (MQTT5-3.1.2-28).
    pub request_response_information: bool,
    /// Whether packets other than PUBLISH, CONNACK, DISCONNECT may bring reason strings (MQTT5-3.1.2-29).
    pub request_problem_information: bool,
    /// Authentication Method
    pub authentication_method: Option<&'a str>,
    /// Authentication Data, only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// All of them as they came; [`property::user_properties`] reads the others.
    pub raw: &'a [u8],
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            raw: &[],
        }
    }
}

/// Why a CONNECT is not accepted by its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub malformed: Malformed,
    /// Version to write CONNACK in; without one the connection is closed in silence.
    pub answer: Option<Version>,
}

/// Decodes the first packet of a connection.
pub fn decode<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, Refused> {
    let silent = |malformed| Refused { malformed, answer: None };
    // MQTT-3.1.0-1
    if !frame.is_connect() {
        return Err(silent(Malformed::protocol("the first packet must be CONNECT")));
    }
    let mut reader = Reader::new(frame.body);
    let name = reader.bytes().map_err(silent)?;
    let level = reader.byte().map_err(silent)?;
    let version = version(name, level & 0x7f)?;
    body(frame, reader, version).map(|connect| Connect { bridge: level >= 0x80, ..connect }).map_err(|malformed| {
        let answered = version == Version::V5 || malformed.reason.connack_v3().is_some();
        Refused { malformed, answer: answered.then_some(version) }
    })
}

/// MQTT-3.1.2-1, MQTT-3.1.2-2.
fn version(name: &[u8], level: u8) -> Result<Version, Refused> {
    let answer = match (name, level) {
        (b"MQTT", 5) => return Ok(Version::V5),
        (b"MQTT", 4) => return Ok(Version::V311),
        (b"MQIsdp", 3) => return Ok(Version::V31),
        (b"MQTT", 6..) => Some(Version::V5),
        (b"MQTT", _) => Some(Version::V311),
        (b"MQIsdp", _) => Some(Version::V31),
        _ => None,
    };
    let text = "speak MQTT 3.1 (MQIsdp, level 3), 3.1.1 (MQTT, level 4) or 5.0 (MQTT, level 5)";
    Err(Refused { malformed: Malformed::new(Reason::UnsupportedProtocolVersion, text), answer })
}

/// Connect Flags.
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_AND_RETAIN: u8 = 0x38;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

fn body<'a>(frame: &Frame<'a>, mut reader: Reader<'a>, version: Version) -> Result<Connect<'a>, Malformed> {
    let flags = Flags(reader.byte()?);
    if version == Version::V5 {
        frame.shortest()?;
    }
    // What is reserved since 3.1.1 was "not used" in 3.1. MQTT-2.2.2-2, MQTT-3.1.2-3.
    if version != Version::V31 && (frame.flags() != 0 || flags.has(1)) {
        return Err(Malformed::packet("CONNECT sets a flag that is reserved"));
    }
    let keep_alive = reader.two()?;
    let properties = match version {
        Version::V5 => read_properties(reader.properties()?)?,
        Version::V31 | Version::V311 => Properties::default(),
    };
    let client_id = reader.text("the client identifier is not UTF-8 or holds U+0000")?;
    let will = will(flags, &mut reader, version)?;
    let user_name = match present(flags, USER_NAME, &reader, version) {
        true => Some(reader.text("the user name is not UTF-8 or holds U+0000")?),
        false => None,
    };
    // MQTT-3.1.2-22, no longer a rule in 5.0.
    if version != Version::V5 && flags.has(PASSWORD) && !flags.has(USER_NAME) {
        return Err(Malformed::packet("before MQTT 5.0 a password needs a user name"));
    }
    let password = match present(flags, PASSWORD, &reader, version) {
        true => Some(reader.bytes()?),
        false => None,
    };
    reader.end()?;
    let clean_start = flags.has(CLEAN);
    id_is_usable(client_id, clean_start, version)?;
    Ok(Connect { version, bridge: false, clean_start, keep_alive, client_id, will, user_name, password, properties })
}

/// Whether a field follows. In 3.1 the length of the packet decides, not the flag (3.1: "User name and password").
fn present(flags: Flags, bit: u8, reader: &Reader<'_>, version: Version) -> bool {
    flags.has(bit) && !(version == Version::V31 && reader.is_empty())
}

/// MQTT-3.1.3-8; 3.1 knows no empty identifier at all.
fn id_is_usable(client_id: &str, clean_start: bool, version: Version) -> Result<(), Malformed> {
    let text = match version {
        Version::V31 if client_id.is_empty() => "MQTT 3.1 needs a client identifier",
        Version::V311 if client_id.is_empty() && !clean_start => {
            "without a client identifier there is no session to keep: set one, or Clean Session"
        }
        _ => return Ok(()),
    };
    Err(Malformed::new(Reason::ClientIdentifierNotValid, text))
}

fn will<'a>(flags: Flags, reader: &mut Reader<'a>, version: Version) -> Result<Option<Will<'a>>, Malformed> {
    if !flags.has(WILL) {
        // MQTT-3.1.2-11, -13, -15; MQTT5-3.1.2-11, -13.
        return match flags.has(WILL_QOS_AND_RETAIN) && version != Version::V31 {
            true => Err(Malformed::packet("CONNECT sets Will QoS or Will Retain without a Will")),
            false => Ok(None),
        };
    }
    // MQTT-3.1.2-14, MQTT5-3.1.2-12
    let qos = Qos::from_bits(flags.0 >> 3 & 3).ok_or(Malformed::packet("the Will QoS is 3; use 0, 1 or 2"))?;
    let properties = if version == Version::V5 { reader.properties()? } else { &[] };
    let (mut delay, mut expiry, mut text) = (0, None, false);
    property::read(properties, Place::Will, |id, value| match (id, value) {
        (Id::WillDelayInterval, Value::Four(seconds)) => delay = seconds,
        (Id::MessageExpiryInterval, Value::Four(seconds)) => expiry = Some(seconds),
        (Id::PayloadFormatIndicator, Value::Byte(indicator)) => text = indicator == 1,
        _ => (),
    })?;
    let topic = topic_name(reader.bytes()?)?;
    if topic.is_empty() {
        return Err(Malformed::new(Reason::TopicNameInvalid, "the Will Topic is empty"));
    }
    let payload = reader.bytes()?;
    let retain = flags.has(WILL_RETAIN);
    Ok(Some(Will { topic, payload, qos, retain, delay, expiry, text, properties }))
}

fn read_properties(raw: &[u8]) -> Result<Properties<'_>, Malformed> {
    let mut found = Properties { raw, ..Properties::default() };
    property::read(raw, Place::Connect, |id, value| match (id, value) {
        (Id::SessionExpiryInterval, Value::Four(seconds)) => found.session_expiry = seconds,
        (Id::ReceiveMaximum, Value::Two(packets)) => found.receive_maximum = packets,
        (Id::MaximumPacketSize, Value::Four(bytes)) => found.maximum_packet_size = Some(bytes),
        (Id::TopicAliasMaximum, Value::Two(highest)) => found.topic_alias_maximum = highest,
        (Id::RequestResponseInformation, Value::Byte(wanted)) => found.request_response_information = wanted == 1,
        (Id::RequestProblemInformation, Value::Byte(wanted)) => found.request_problem_information = wanted == 1,
        (Id::AuthenticationMethod, Value::Text(method)) => found.authentication_method = Some(method),
        (Id::AuthenticationData, Value::Bytes(data)) => found.authentication_data = Some(data),
        _ => (),
    })?;
    match found {
        Properties { authentication_data: Some(_), authentication_method: None, .. } => {
            Err(Malformed::protocol("Authentication Data comes without an Authentication Method"))
        }
        _ => Ok(found),
    }
}
