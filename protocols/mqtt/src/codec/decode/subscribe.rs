//! SUBSCRIBE and UNSUBSCRIBE.

use super::flags;
use crate::codec::malformed::Malformed;
use crate::codec::property::{self, Id, Place, Value};
use crate::codec::reader::Reader;
use crate::codec::{Frame, Qos, Version};
use crate::reason::Reason;
use crate::topic::{self, BadFilter};

/// When a subscription brings what is retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0
    #[default]
    Always,
    /// 1: only if the subscription is new
    IfNew,
    /// 2
    Never,
}

/// How one filter is subscribed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Highest QoS wanted.
    pub qos: Qos,
    /// Not what this client itself publishes.
    pub no_local: bool,
    /// RETAIN of live messages as published, instead of 0.
    pub retain_as_published: bool,
    /// When to bring what is retained.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// MQTT-3.8.3-4, MQTT5-3.8.3-5.
    fn read(byte: u8, version: Version) -> Result<Self, Malformed> {
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        if byte & reserved != 0 {
            return Err(Malformed::packet("a subscription sets option bits that are reserved"));
        }
        let qos = Qos::from_bits(byte & 3).ok_or(Malformed::packet("a subscription asks for QoS 3; use 0, 1 or 2"))?;
        let retain_handling = match byte >> 4 & 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(Malformed::protocol("Retain Handling is 3; use 0, 1 or 2")),
        };
        Ok(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }
}

/// A request for subscriptions.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    /// Packet identifier, not 0.
    pub packet_id: u16,
    /// Subscription Identifier of all of them, not 0.
    pub identifier: Option<u32>,
    /// Properties as they came.
    pub properties: &'a [u8],
    /// How many filters there are; at least one.
    pub count: usize,
    /// The filters, all of them valid, in their order.
    ///
    /// What follows `$share/` is not: [`topic::Subscription::parse`] reads it, and SUBACK can refuse one of many.
    pub filters: Filters<'a>,
}

/// Iterator over the filters of a SUBSCRIBE.
#[derive(Clone)]
pub struct Filters<'a> {
    reader: Reader<'a>,
    version: Version,
}

impl<'a> Filters<'a> {
    fn read(&mut self) -> Result<(&'a str, SubscribeOptions), Malformed> {
        let filter = self.reader.text(FILTER_TEXT)?;
        Ok((filter, SubscribeOptions::read(self.reader.byte()?, self.version)?))
    }
}

impl<'a> Iterator for Filters<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        self.read().ok()
    }
}

impl std::fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// A request to end subscriptions.
#[derive(Clone, Debug)]
pub struct Unsubscribe<'a> {
    /// Packet identifier, not 0.
    pub packet_id: u16,
    /// Properties as they came.
    pub properties: &'a [u8],
    /// How many filters there are; at least one.
    pub count: usize,
    /// The filters, all of them valid, in their order.
    pub filters: Names<'a>,
}

/// Iterator over the filters of an UNSUBSCRIBE.
#[derive(Clone)]
pub struct Names<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.text(FILTER_TEXT).ok()
    }
}

impl std::fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

const FILTER_TEXT: &str = "a topic filter is not UTF-8 or holds U+0000";

pub(super) fn subscribe<'a>(frame: &Frame<'a>, version: Version) -> Result<Subscribe<'a>, Malformed> {
    flags(frame, 2, version)?; // MQTT-3.8.1-1
    let mut reader = Reader::new(frame.body);
    let packet_id = reader.packet_id()?;
    let properties = if version == Version::V5 { reader.properties()? } else { &[] };
    let mut identifier = None;
    property::read(properties, Place::Subscribe, |id, value| {
        if let (Id::SubscriptionIdentifier, Value::Var(given)) = (id, value) {
            identifier = Some(given);
        }
    })?;
    let filters = Filters { reader, version };
    let count = count_filters(filters.clone())?;
    Ok(Subscribe { packet_id, identifier, properties, count, filters })
}

fn count_filters(mut filters: Filters<'_>) -> Result<usize, Malformed> {
    let mut count = 0;
    while !filters.reader.is_empty() {
        let (filter, options) = filters.read()?;
        valid(filter)?;
        // MQTT5-3.8.3-4
        if options.no_local && topic::is_shared(filter) {
            return Err(Malformed::protocol("No Local is set on a shared subscription"));
        }
        count += 1;
    }
    at_least_one(count)
}

pub(super) fn unsubscribe<'a>(frame: &Frame<'a>, version: Version) -> Result<Unsubscribe<'a>, Malformed> {
    flags(frame, 2, version)?; // MQTT-3.10.1-1
    let mut reader = Reader::new(frame.body);
    let packet_id = reader.packet_id()?;
    let properties = if version == Version::V5 { reader.properties()? } else { &[] };
    property::read(properties, Place::Unsubscribe, |_, _| ())?;
    let filters = Names { reader };
    let mut count = 0;
    while !reader.is_empty() {
        valid(reader.text(FILTER_TEXT)?)?;
        count += 1;
    }
    Ok(Unsubscribe { packet_id, properties, count: at_least_one(count)?, filters })
}

/// MQTT-3.8.3-3, MQTT-3.10.3-2.
fn at_least_one(count: usize) -> Result<usize, Malformed> {
    match count {
        0 => Err(Malformed::protocol("SUBSCRIBE and UNSUBSCRIBE need at least one topic filter")),
        _ => Ok(count),
    }
}

/// MQTT-4.7.1-2, -3, MQTT-4.7.3-1.
fn valid(filter: &str) -> Result<(), Malformed> {
    topic::check_filter(filter).map_err(|bad| match bad {
        BadFilter::Empty | BadFilter::Nul | BadFilter::TooLong => Malformed::packet(bad.text()),
        BadFilter::Hash | BadFilter::Plus | BadFilter::Share => Malformed::new(Reason::TopicFilterInvalid, bad.text()),
    })
}
