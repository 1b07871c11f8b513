//! Every method as bytes, and what `amq-protocol` reads back of each.

use amq_protocol::frame::parse_frame;
use portolan_core::value::Value;

use super::*;

#[track_caller]
fn on_the_wire(sent: ServerMethod<'_>, expected: &[u8]) {
    // Something is there already: a method is appended.
    let mut out = b"before".to_vec();
    method(&mut out, 5, sent);
    let length = u32::try_from(expected.len()).unwrap().to_be_bytes();
    let frame = [&[1, 0, 5], &length[..], expected, &[0xCE]].concat();
    assert_eq!(out.strip_prefix(b"before"), Some(&frame[..]));
    assert_eq!(parse_frame(&frame[..]), Ok((&[][..], AMQPFrame::Method(5, to_amq(sent)))));
}

#[test]
fn connection_methods() {
    let properties = Table(vec![("product".into(), Value::text("RabbitMQ"))]);
    on_the_wire(
        ServerMethod::Start { server_properties: &properties, mechanisms: "PLAIN", locales: "en_US" },
        b"\0\x0a\0\x0a\0\x09\0\0\0\x15\x07productS\0\0\0\x08RabbitMQ\0\0\0\x05PLAIN\0\0\0\x05en_US",
    );
    on_the_wire(ServerMethod::Secure { challenge: b"?" }, b"\0\x0a\0\x14\0\0\0\x01?");
    on_the_wire(
        ServerMethod::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
        b"\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x3c",
    );
    on_the_wire(ServerMethod::ConnectionOpenOk, b"\0\x0a\0\x29\0");
    on_the_wire(
        ServerMethod::ConnectionClose { reply_code: 320, reply_text: "bye", class: 60, method: 40 },
        b"\0\x0a\0\x32\x01\x40\x03bye\0\x3c\0\x28",
    );
    on_the_wire(ServerMethod::ConnectionCloseOk, b"\0\x0a\0\x33");
    on_the_wire(ServerMethod::Blocked { reason: "low on disk" }, b"\0\x0a\0\x3c\x0blow on disk");
    on_the_wire(ServerMethod::Unblocked, b"\0\x0a\0\x3d");
    on_the_wire(ServerMethod::UpdateSecretOk, b"\0\x0a\0\x47");
}

#[test]
fn channel_access_and_exchange_methods() {
    on_the_wire(ServerMethod::ChannelOpenOk, b"\0\x14\0\x0b\0\0\0\0");
    on_the_wire(ServerMethod::ChannelFlowOk { active: true }, b"\0\x14\0\x15\x01");
    on_the_wire(
        ServerMethod::ChannelClose { reply_code: 404, reply_text: "no", class: 50, method: 10 },
        b"\0\x14\0\x28\x01\x94\x02no\0\x32\0\x0a",
    );
    on_the_wire(ServerMethod::ChannelCloseOk, b"\0\x14\0\x29");
    on_the_wire(ServerMethod::AccessRequestOk, b"\0\x1e\0\x0b\0\x01");
    on_the_wire(ServerMethod::ExchangeDeclareOk, b"\0\x28\0\x0b");
    on_the_wire(ServerMethod::ExchangeDeleteOk, b"\0\x28\0\x15");
    on_the_wire(ServerMethod::ExchangeBindOk, b"\0\x28\0\x1f");
    // RabbitMQ's number; the pattern of the others would make it 41.
    on_the_wire(ServerMethod::ExchangeUnbindOk, b"\0\x28\0\x33");
}

#[test]
fn queue_methods() {
    on_the_wire(
        ServerMethod::QueueDeclareOk { queue: "q", message_count: 1, consumer_count: 2 },
        b"\0\x32\0\x0b\x01q\0\0\0\x01\0\0\0\x02",
    );
    on_the_wire(ServerMethod::QueueBindOk, b"\0\x32\0\x15");
    on_the_wire(ServerMethod::QueueUnbindOk, b"\0\x32\0\x33");
    on_the_wire(ServerMethod::QueuePurgeOk { message_count: 3 }, b"\0\x32\0\x1f\0\0\0\x03");
    on_the_wire(ServerMethod::QueueDeleteOk { message_count: 3 }, b"\0\x32\0\x29\0\0\0\x03");
}

#[test]
fn basic_confirm_and_tx_methods() {
    on_the_wire(ServerMethod::QosOk, b"\0\x3c\0\x0b");
    on_the_wire(ServerMethod::ConsumeOk { consumer_tag: "t" }, b"\0\x3c\0\x15\x01t");
    on_the_wire(ServerMethod::Cancel { consumer_tag: "t" }, b"\0\x3c\0\x1e\x01t\x01");
    on_the_wire(ServerMethod::CancelOk { consumer_tag: "t" }, b"\0\x3c\0\x1f\x01t");
    on_the_wire(ServerMethod::GetEmpty, b"\0\x3c\0\x48\0");
    on_the_wire(ServerMethod::RecoverOk, b"\0\x3c\0\x6f");
    on_the_wire(ServerMethod::ConfirmSelectOk, b"\0\x55\0\x0b");
    on_the_wire(ServerMethod::TxSelectOk, b"\0\x5a\0\x0b");
    on_the_wire(ServerMethod::TxCommitOk, b"\0\x5a\0\x15");
    on_the_wire(ServerMethod::TxRollbackOk, b"\0\x5a\0\x1f");
}

#[test]
fn heartbeat_reads_back() {
    assert_eq!(parse_frame(&HEARTBEAT[..]), Ok((&[][..], AMQPFrame::Heartbeat)));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    for (text, kept) in [("a".repeat(255), 255), ("a".repeat(300), 255), (format!("a{}", "é".repeat(200)), 255)] {
        assert_eq!((short_string(&text).as_str().len(), short(text.as_bytes()).len()), (kept, kept));
    }
    let text = "é".repeat(200);
    assert_eq!((short_string(&text).as_str().len(), short(text.as_bytes()).len()), (254, 254));
    assert_eq!(short(&[0x80; 300]).len(), 255);
}
