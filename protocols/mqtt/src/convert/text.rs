//! Values as the text of a user property.

use std::borrow::Cow;

use portolan_core::value::Value;

/// The text of a value, fit for a client; `None` for tables, arrays and bytes that are not UTF-8, which have none.
pub(super) fn of(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Void => "".into(),
        Value::Bool(value) => if *value { "true" } else { "false" }.into(),
        Value::Text(octets) | Value::Bytes(octets) => clean(std::str::from_utf8(octets).ok()?),
        // Debug writes a point or an exponent, so that it stays a floating point number.
        Value::F32(value) => format!("{value:?}").into(),
        Value::F64(value) => format!("{value:?}").into(),
        Value::Decimal { scale, value } => decimal(*value, usize::from(*scale)).into(),
        Value::Timestamp(seconds) => seconds.to_string().into(),
        Value::Table(_) | Value::Array(_) => return None,
        integer => integer.as_integer()?.to_string().into(),
    })
}

fn decimal(value: u32, scale: usize) -> String {
    let mut digits = format!("{value:0>width$}", width = scale + 1);
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    digits
}

/// The text without what a client may close its connection for: U+FFFD stands for each character that MQTT5-1.5.4-2
/// forbids or 1.5.4 advises against. A client that does close would get the same message again and again.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    match text.contains(is_refused) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.replace(is_refused, "\u{fffd}")),
    }
}

/// Control characters and Unicode's non-characters.
fn is_refused(one: char) -> bool {
    one.is_control() || matches!(one, '\u{fdd0}'..='\u{fdef}') || u32::from(one) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(value: Value, text: &str) {
        assert_eq!(of(&value).as_deref(), Some(text));
    }

    #[test]
    fn every_scalar_has_a_text() {
        reads(Value::text("v"), "v");
        reads(Value::Bytes((*b"v").into()), "v");
        reads(Value::I32(7), "7");
        reads(Value::I8(-7), "-7");
        reads(Value::U32(u32::MAX), "4294967295");
        reads(Value::Bool(true), "true");
        reads(Value::Void, "");
        reads(Value::F64(1.0), "1.0");
        reads(Value::F32(0.1), "0.1");
        reads(Value::F64(1e300), "1e300");
        reads(Value::Timestamp(u64::MAX), "18446744073709551615");
        reads(Value::Decimal { scale: 2, value: 256 }, "2.56");
        reads(Value::Decimal { scale: 3, value: 5 }, "0.005");
        reads(Value::Decimal { scale: 0, value: 5 }, "5");
    }

    #[test]
    fn what_has_no_text() {
        for value in [Value::Array(vec![]), Value::Table(Default::default()), Value::Bytes((*b"\xff").into())] {
            assert_eq!(of(&value), None);
        }
    }

    #[test]
    fn characters_that_clients_refuse_are_replaced() {
        assert_eq!(
            clean("a\nb\0c\u{85}\u{fdd0}\u{1ffff}\u{fffe}"),
            "a\u{fffd}b\u{fffd}c".to_owned() + &"\u{fffd}".repeat(4)
        );
        assert!(matches!(clean("é \u{feff}\u{fffd}"), Cow::Borrowed(_)));
    }
}
