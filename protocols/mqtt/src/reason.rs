//! Reason codes of MQTT 5.0, and what becomes of them in the versions that know almost none.

macro_rules! reasons {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// A reason code of MQTT 5.0 (2.4).
        ///
        /// 0x00 is Success here, whatever else its place calls it: Normal disconnection, Granted QoS 0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $code,)*
        }

        impl Reason {
            /// Every reason, by rising code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The reason with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name that the specification gives it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    Success = 0x00, "Success";
    GrantedQos1 = 0x01, "Granted QoS 1";
    GrantedQos2 = 0x02, "Granted QoS 2";
    DisconnectWithWill = 0x04, "Disconnect with Will Message";
    NoMatchingSubscribers = 0x10, "No matching subscribers";
    NoSubscriptionExisted = 0x11, "No subscription existed";
    ContinueAuthentication = 0x18, "Continue authentication";
    ReAuthenticate = 0x19, "Re-authenticate";
    UnspecifiedError = 0x80, "Unspecified error";
    MalformedPacket = 0x81, "Malformed Packet";
    ProtocolError = 0x82, "Protocol Error";
    ImplementationSpecificError = 0x83, "Implementation specific error";
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version";
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid";
    BadUserNameOrPassword = 0x86, "Bad User Name or Password";
    NotAuthorized = 0x87, "Not authorized";
    ServerUnavailable = 0x88, "Server unavailable";
    ServerBusy = 0x89, "Server busy";
    Banned = 0x8a, "Banned";
    ServerShuttingDown = 0x8b, "Server shutting down";
    BadAuthenticationMethod = 0x8c, "Bad authentication method";
    KeepAliveTimeout = 0x8d, "Keep Alive timeout";
    SessionTakenOver = 0x8e, "Session taken over";
    TopicFilterInvalid = 0x8f, "Topic Filter invalid";
    TopicNameInvalid = 0x90, "Topic Name invalid";
    PacketIdentifierInUse = 0x91, "Packet Identifier in use";
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found";
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded";
    TopicAliasInvalid = 0x94, "Topic Alias invalid";
    PacketTooLarge = 0x95, "Packet too large";
    MessageRateTooHigh = 0x96, "Message rate too high";
    QuotaExceeded = 0x97, "Quota exceeded";
    AdministrativeAction = 0x98, "Administrative action";
    PayloadFormatInvalid = 0x99, "Payload format invalid";
    RetainNotSupported = 0x9a, "Retain not supported";
    QosNotSupported = 0x9b, "QoS not supported";
    UseAnotherServer = 0x9c, "Use another server";
    ServerMoved = 0x9d, "Server moved";
    SharedSubscriptionsNotSupported = 0x9e, "Shared Subscriptions not supported";
    ConnectionRateExceeded = 0x9f, "Connection rate exceeded";
    MaximumConnectTime = 0xa0, "Maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xa1, "Subscription Identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xa2, "Wildcard Subscriptions not supported";
}

impl Reason {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed (2.4: 0x80 and above).
    pub fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The return code of a CONNACK before 5.0; without one the connection is closed in silence (MQTT-3.2.2-6).
    pub fn connack_v3(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::UnspecifiedError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::UseAnotherServer
            | Self::ServerMoved => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized
            | Self::Banned
            | Self::MessageRateTooHigh
            | Self::QuotaExceeded
            | Self::RetainNotSupported
            | Self::QosNotSupported
            | Self::ConnectionRateExceeded => Some(5),
            // Malformed packets are never answered, and the others belong to other packets than CONNACK, or to
            // exchanges that 3.x does not have.
            Self::GrantedQos1
            | Self::GrantedQos2
            | Self::DisconnectWithWill
            | Self::NoMatchingSubscribers
            | Self::NoSubscriptionExisted
            | Self::ContinueAuthentication
            | Self::ReAuthenticate
            | Self::MalformedPacket
            | Self::ProtocolError
            | Self::BadAuthenticationMethod
            | Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::TopicFilterInvalid
            | Self::TopicNameInvalid
            | Self::PacketIdentifierInUse
            | Self::PacketIdentifierNotFound
            | Self::ReceiveMaximumExceeded
            | Self::TopicAliasInvalid
            | Self::PacketTooLarge
            | Self::AdministrativeAction
            | Self::PayloadFormatInvalid
            | Self::SharedSubscriptionsNotSupported
            | Self::MaximumConnectTime
            | Self::SubscriptionIdentifiersNotSupported
            | Self::WildcardSubscriptionsNotSupported => None,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_rise() {
        assert!(Reason::ALL.is_sorted());
        for code in 0..=u8::MAX {
            let known = Reason::from_code(code);
            assert_eq!(known.map(Reason::code), Reason::ALL.iter().map(|r| r.code()).find(|&c| c == code));
        }
        assert_eq!(Reason::ALL.len(), 43);
    }

    #[test]
    fn one_decision_serves_all_versions() {
        for (code, v3) in [
            (0x00, Some(0)),
            (0x84, Some(1)),
            (0x85, Some(2)),
            (0x88, Some(3)),
            (0x9c, Some(3)),
            (0x9d, Some(3)),
            (0x89, Some(3)),
            (0x86, Some(4)),
            (0x87, Some(5)),
            (0x8a, Some(5)),
            (0x97, Some(5)),
            (0x9f, Some(5)),
            (0x9a, Some(5)),
            (0x9b, Some(5)),
            (0x81, None),
            (0x82, None),
        ] {
            assert_eq!(Reason::from_code(code).unwrap().connack_v3(), v3, "{code:#x}");
        }
    }

    #[test]
    fn errors_start_at_0x80() {
        assert!(!Reason::ReAuthenticate.is_error());
        assert!(Reason::UnspecifiedError.is_error());
    }
}
