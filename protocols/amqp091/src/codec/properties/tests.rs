//! Properties against hand-made bytes, against `amq-protocol`, and against damage.

use amq_protocol::frame::parsing::parse_content_header;
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::BasicProperties;
use portolan_core::value::Value;
use proptest::prelude::*;

use super::super::table::tests::any_table;
use super::*;

/// Every property, in wire order.
const ALL: &[u8] = b"\xff\xfc\
    \x02ct\x02ce\x00\x00\x00\x04\x01hB\x05\x02\x09\x03cid\x02rt\x0560000\x02id\
    \x00\x00\x00\x00\x00\x00\x01\x00\x02ty\x05guest\x02ap\x02cl";

fn limits() -> Limits {
    Limits::default()
}

#[test]
fn every_property_is_found() {
    let found = parse(ALL, limits()).unwrap();
    assert_eq!(found.content_type(), Some(&b"ct"[..]));
    assert_eq!(found.content_encoding(), Some(&b"ce"[..]));
    assert_eq!(found.headers(), Some(&b"\x01hB\x05"[..]));
    assert_eq!((found.delivery_mode(), found.priority()), (Some(2), Some(9)));
    assert_eq!(found.correlation_id(), Some(&b"cid"[..]));
    assert_eq!(found.reply_to(), Some(&b"rt"[..]));
    assert_eq!(found.expiration(), Some(&b"60000"[..]));
    assert_eq!(found.message_id(), Some(&b"id"[..]));
    assert_eq!(found.timestamp(), Some(256));
    assert_eq!(found.kind(), Some(&b"ty"[..]));
    assert_eq!(found.user_id(), Some(&b"guest"[..]));
    assert_eq!(found.app_id(), Some(&b"ap"[..]));
    assert_eq!(found.cluster_id(), Some(&b"cl"[..]));
    assert_eq!(headers(ALL, limits()), Ok(Table(vec![("h".into(), Value::U8(5))])));
}

#[test]
fn facts_of_all_few_and_none() {
    let expected = PropertyFacts {
        delivery_mode: Some(2),
        priority: Some(9),
        expiration: Some(b"60000"),
        user_id: Some(b"guest"),
        reply_to: Some(b"rt"),
        headers: Some(b"\x01hB\x05"),
    };
    assert_eq!(facts(ALL), Ok(expected));
    assert_eq!(facts(&[0, 0]), Ok(PropertyFacts::default()));
    let persistent = PropertyFacts { delivery_mode: Some(2), ..PropertyFacts::default() };
    assert_eq!(facts(&[0x10, 0, 2]), Ok(persistent));
    assert_eq!(facts(b"\x90\x00\x02ct\x02"), Ok(persistent));
    assert_eq!(headers(&[0, 0], limits()), Ok(Table::default()));
}

#[track_caller]
fn refused(raw: &[u8]) {
    let malformed = facts(raw).unwrap_err();
    assert_eq!((malformed.reply_code(), malformed.reply_text().as_str()), (541, "INTERNAL_ERROR"));
    assert!(
        parse(raw, limits()).is_err() && headers(raw, limits()).is_err() && rewrite(raw, Edits::default()).is_err()
    );
}

#[test]
fn refusals() {
    refused(b"");
    refused(&[0]);
    refused(&[0, 2]);
    refused(&[0, 1]);
    refused(&[0, 1, 0, 0]);
    refused(&[0, 0, 0]);
    refused(&[0x10, 0]);
    refused(&[0x10, 0, 2, 2]);
    for cut in 0..ALL.len() {
        refused(&ALL[..cut]);
    }
}

#[test]
fn a_bad_headers_table_is_found_by_parse_alone() {
    let raw = b"\x20\x00\x00\x00\x00\x03\x01kZ";
    assert_eq!(parse(raw, limits()).unwrap_err(), Malformed::UnknownTag(b'Z'));
    assert_eq!(headers(raw, limits()).unwrap_err(), Malformed::UnknownTag(b'Z'));
    assert_eq!(facts(raw).map(|facts| facts.headers), Ok(Some(&b"\x01kZ"[..])));
}

#[test]
fn values_need_not_be_text() {
    assert_eq!(parse(b"\x80\x00\x01\xff", limits()).unwrap().content_type(), Some(&b"\xff"[..]));
}

#[test]
fn edits_change_what_they_name_and_nothing_else() {
    let table = Table(vec![("new".into(), Value::Bool(true))]);
    let edits = Edits { headers: Edit::Set(&table), reply_to: Edit::Set(b"queue"), expiration: Edit::Remove };
    let expected = b"\xfe\xfc\
        \x02ct\x02ce\x00\x00\x00\x06\x03newt\x01\x02\x09\x03cid\x05queue\x02id\
        \x00\x00\x00\x00\x00\x00\x01\x00\x02ty\x05guest\x02ap\x02cl";
    assert_eq!(rewrite(ALL, edits).unwrap(), expected);
    assert_eq!(rewrite(&[0, 0], Edits { reply_to: Edit::Set(b"q"), ..Edits::default() }).unwrap(), b"\x02\x00\x01q");
    assert_eq!(rewrite(&[0, 0], Edits { headers: Edit::Remove, ..Edits::default() }).unwrap(), [0, 0]);
    let removed = rewrite(ALL, Edits { headers: Edit::Remove, ..Edits::default() }).unwrap();
    assert_eq!(parse(&removed, limits()).unwrap().headers(), None);
}

/// The properties as `amq-protocol` writes them, behind the 12 fixed bytes of a header frame's payload.
fn written_by_amq_protocol(properties: BasicProperties) -> Vec<u8> {
    let header = AMQPContentHeader { class_id: 60, body_size: 0, properties };
    let frame = AMQPFrame::Header(1, header);
    let bytes = gen_frame(&frame)(WriteContext::from(Vec::new())).unwrap().write;
    bytes[7 + 12..bytes.len() - 1].to_vec()
}

#[test]
fn amq_protocol_agrees() {
    let table = Table(vec![("h".into(), Value::U8(5))]);
    let properties = BasicProperties::default()
        .with_content_type("ct".into())
        .with_content_encoding("ce".into())
        .with_headers(table::to_amq(&table))
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("cid".into())
        .with_reply_to("rt".into())
        .with_expiration("60000".into())
        .with_message_id("id".into())
        .with_timestamp(256)
        .with_type("ty".into())
        .with_user_id("guest".into())
        .with_app_id("ap".into())
        .with_cluster_id("cl".into());
    assert_eq!(written_by_amq_protocol(properties), ALL);
    assert_eq!(written_by_amq_protocol(BasicProperties::default()), [0, 0]);
}

fn any_properties() -> impl Strategy<Value = Vec<u8>> {
    (any::<u16>(), any_table(), prop::collection::vec(prop::collection::vec(any::<u8>(), 8), 14)).prop_map(
        |(flags, headers, values)| {
            let flags = flags & !INVALID_FLAGS;
            let mut raw = flags.to_be_bytes().to_vec();
            for (property, value) in Property::ALL.into_iter().zip(values) {
                match property {
                    _ if flags & property.flag() == 0 => {}
                    Property::Headers => table::put(&mut raw, &headers),
                    Property::DeliveryMode | Property::Priority => raw.push(value[0]),
                    Property::Timestamp => raw.extend(value),
                    _ => put_short(&mut raw, &value),
                }
            }
            raw
        },
    )
}

proptest! {
    #[test]
    fn any_properties_are_kept_byte_for_byte(raw in any_properties()) {
        prop_assert!(parse(&raw, limits()).is_ok());
        prop_assert_eq!(rewrite(&raw, Edits::default()), Ok(raw));
    }

    #[test]
    fn amq_protocol_reads_what_we_rewrite(raw in any_properties(), table in any_table()) {
        let edits = Edits { headers: Edit::Set(&table), reply_to: Edit::Remove, expiration: Edit::Set(b"5") };
        let edited = rewrite(&raw, edits).unwrap();
        prop_assert_eq!(headers(&edited, limits()), Ok(table));
        // `amq-protocol` takes only UTF-8 in short strings, so compare where it reads the bytes at all.
        let payload = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &edited].concat();
        if let Ok((rest, read)) = parse_content_header(&payload[..]) {
            prop_assert!(rest.is_empty());
            prop_assert_eq!(read.properties.expiration().as_ref().map(|text| text.as_str()), Some("5"));
            prop_assert_eq!(read.properties.reply_to(), &None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (facts(&raw), parse(&raw, limits()).is_ok(), headers(&raw, limits()));
        let _ = rewrite(&raw, Edits { headers: Edit::Remove, ..Edits::default() });
    }

    #[test]
    fn no_damage_makes_it_panic(raw in any_properties(), at: prop::sample::Index, octet: u8) {
        let mut raw = raw;
        let at = at.index(raw.len());
        raw[at] = octet;
        prop_assert_eq!(facts(&raw).is_ok(), locate(&raw).is_ok());
        let _ = (parse(&raw, limits()).is_ok(), headers(&raw, limits()));
    }
}
