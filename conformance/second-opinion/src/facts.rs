//! What a packet says, in words that do not depend on whose decoder read it.

use std::fmt::Debug;

use portolan_mqtt::codec::property::{Id, Value};
use portolan_mqtt::reason::Reason;

/// Names and values; user properties and filters keep their order, all else is sorted.
#[derive(Debug, Default)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// The facts of a packet of this type.
    pub fn of(packet: &str) -> Self {
        let mut facts = Self::default();
        facts.say("packet", packet);
        facts
    }

    /// Adds a fact.
    pub fn say(&mut self, what: &str, value: impl Debug) {
        self.0.push((what.to_owned(), format!("{value:?}")));
    }

    /// Adds a property, of the packet (`""`) or of its Will.
    pub fn property(&mut self, whose: &str, id: Id, value: Value<'_>) {
        self.say(&format!("{whose}{}", id.name()), value);
    }

    /// Says where the others say something else.
    pub fn agree(mut self, mut others: Self) -> Result<(), String> {
        for facts in [&mut self.0, &mut others.0] {
            facts.sort_by(|left, right| left.0.cmp(&right.0));
        }
        if self.0 == others.0 {
            return Ok(());
        }
        let only = |here: &Self, there: &Self| {
            here.0
                .iter()
                .filter(|fact| !there.0.contains(fact))
                .map(|(what, value)| format!("{what}={value} "))
                .collect()
        };
        let (ours, theirs): (String, String) = (only(&self, &others), only(&others, &self));
        Err(format!("Portolan: {ours}/ rumqttd: {theirs}"))
    }
}

/// What rumqttd calls otherwise than Portolan; both read the codes from the wire, so that comparing the names compares
/// what the codes were taken for.
const SYNONYMS: &[(&str, &str)] = &[
    ("BadUserNamePassword", "BadUserNameOrPassword"),
    ("DisconnectWithWillMessage", "DisconnectWithWill"),
    ("Failure", "UnspecifiedError"),
    ("ImplementationSpecific", "ImplementationSpecificError"),
    ("NormalDisconnection", "Success"),
    ("OnEverySubscribe", "Always"),
    ("OnNewSubscribe", "IfNew"),
    ("PkidInUse", "PacketIdentifierInUse"),
    ("QoS0", "Success"),
    ("QoS1", "GrantedQos1"),
    ("QoS2", "GrantedQos2"),
    ("QoSNotSupported", "QosNotSupported"),
    ("RefusedProtocolVersion", "UnsupportedProtocolVersion"),
    ("ServiceUnavailable", "ServerUnavailable"),
    ("SharedSubscriptionNotSupported", "SharedSubscriptionsNotSupported"),
    ("SubscriptionIdNotSupported", "SubscriptionIdentifiersNotSupported"),
    ("Success(AtLeastOnce)", "GrantedQos1"),
    ("Success(AtMostOnce)", "Success"),
    ("Success(ExactlyOnce)", "GrantedQos2"),
    ("Unspecified", "UnspecifiedError"),
];

/// What Portolan calls this reason or option.
pub fn name(value: impl Debug) -> String {
    let name = format!("{value:?}");
    SYNONYMS.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| (*ours).to_owned())
}

/// Portolan's reason of the same name.
pub fn reason_of(theirs: impl Debug) -> Result<Reason, String> {
    let name = name(theirs);
    Reason::ALL.iter().copied().find(|reason| format!("{reason:?}") == name).ok_or(format!("no reason {name}"))
}
