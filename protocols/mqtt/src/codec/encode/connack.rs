//! CONNACK.

use super::{Explanation, Parts, Peer, put_property, put_short};
use crate::codec::property::{Id, Value};
use crate::codec::{Qos, Version};
use crate::reason::Reason;

/// The answer to CONNECT. What is `None` is not sent, and then means what its absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Success, or why not.
    pub reason: Reason,
    /// Session Present; not sent with a refusal (MQTT-3.2.2-4, MQTT5-3.2.2-6), and not before 3.1.1.
    pub session_present: bool,
    /// Session Expiry Interval in seconds, where it is not the client's.
    pub session_expiry: Option<u32>,
    /// PUBLISH packets of QoS 1 and 2 that the server takes at a time.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS, where it is not 2.
    pub maximum_qos: Option<Qos>,
    /// Retain Available
    pub retain_available: Option<bool>,
    /// Largest packet that the server takes.
    pub maximum_packet_size: Option<u32>,
    /// Identifier of a client that gave none (MQTT5-3.2.2-16).
    pub assigned_client_id: Option<&'a str>,
    /// Highest topic alias that the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// Wildcard Subscription Available
    pub wildcard_subscriptions: Option<bool>,
    /// Subscription Identifiers Available
    pub subscription_identifiers: Option<bool>,
    /// Shared Subscription Available
    pub shared_subscriptions: Option<bool>,
    /// Keep Alive in seconds, where it is not the client's.
    pub server_keep_alive: Option<u16>,
    /// Response Information, only if the client asked for it (MQTT5-3.1.2-28).
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Authentication Method, the client's (MQTT5-4.12.0-5).
    pub authentication_method: Option<&'a str>,
    /// Authentication Data
    pub authentication_data: Option<&'a [u8]>,
    /// Words for people.
    pub explanation: Explanation<'a>,
}

impl<'a> Connack<'a> {
    /// An answer that says no more than its reason.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            session_present: false,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            wildcard_subscriptions: None,
            subscription_identifiers: None,
            shared_subscriptions: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
            explanation: Explanation::NONE,
        }
    }

    fn properties(&self) -> Vec<u8> {
        let flag = |set: bool| Value::Byte(set.into());
        let all = [
            (Id::SessionExpiryInterval, self.session_expiry.map(Value::Four)),
            (Id::ReceiveMaximum, self.receive_maximum.map(Value::Two)),
            (Id::MaximumQos, self.maximum_qos.map(|qos| Value::Byte(qos.bits()))),
            (Id::RetainAvailable, self.retain_available.map(flag)),
            (Id::MaximumPacketSize, self.maximum_packet_size.map(Value::Four)),
            (Id::AssignedClientIdentifier, self.assigned_client_id.map(Value::Text)),
            (Id::TopicAliasMaximum, self.topic_alias_maximum.map(Value::Two)),
            (Id::WildcardSubscriptionAvailable, self.wildcard_subscriptions.map(flag)),
            (Id::SubscriptionIdentifierAvailable, self.subscription_identifiers.map(flag)),
            (Id::SharedSubscriptionAvailable, self.shared_subscriptions.map(flag)),
            (Id::ServerKeepAlive, self.server_keep_alive.map(Value::Two)),
            (Id::ResponseInformation, self.response_information.map(Value::Text)),
            (Id::ServerReference, self.server_reference.map(Value::Text)),
            (Id::AuthenticationMethod, self.authentication_method.map(Value::Text)),
            (Id::AuthenticationData, self.authentication_data.map(Value::Bytes)),
        ];
        let mut block = Vec::new();
        for (id, value) in all {
            if let Some(value) = value {
                put_property(&mut block, id, value);
            }
        }
        block
    }
}

/// Appends CONNACK; `false` if the client's version has no code for the reason, or the packet is too large for it:
/// then the connection is closed in silence (MQTT-3.2.2-6).
pub fn connack(out: &mut Vec<u8>, peer: Peer, connack: &Connack<'_>) -> bool {
    let accepted = connack.reason == Reason::Success;
    let session_present = u8::from(connack.session_present && accepted && peer.version != Version::V31);
    match (peer.version, connack.reason.connack_v3()) {
        (Version::V5, _) => {
            let head = [session_present, connack.reason.code()];
            let (own, explanation) = (connack.properties(), connack.explanation);
            Parts { first: 0x20, head: &head, own, explanation, tail: &[] }.put(out, peer)
        }
        (_, Some(code)) => put_short(out, peer, &[0x20, 2, session_present, code]),
        (_, None) => false,
    }
}
