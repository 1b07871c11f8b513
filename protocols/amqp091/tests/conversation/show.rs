//! What the server sends, as short lines.

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn short(&mut self) -> String {
        let length = self.number(1) as usize;
        String::from_utf8(self.take(length)).unwrap()
    }
}

/// One content that is being put together.
struct Content {
    head: String,
    size: Option<u64>,
    body: Vec<u8>,
}

/// Every frame of `bytes`; content is shown with its method. Whatever is not whole is an error.
pub fn lines(bytes: &[u8], frame_max: usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut content: Option<Content> = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.starts_with(b"AMQP") {
            out.push("header".to_owned());
            rest = &rest[8..];
            continue;
        }
        let kind = rest[0];
        let channel = u16::from_be_bytes([rest[1], rest[2]]);
        let length = u32::from_be_bytes([rest[3], rest[4], rest[5], rest[6]]) as usize;
        assert!(length + 8 <= frame_max, "a frame of {length} bytes is larger than agreed");
        let payload = &rest[7..7 + length];
        assert_eq!(rest[7 + length], 0xCE, "the frame ends where it should");
        rest = &rest[8 + length..];
        match kind {
            1 => {
                assert!(content.is_none(), "a method within content");
                let head = format!("{channel} {}", method(payload));
                let has_content = payload.starts_with(&[0, 60]) && [50, 60, 71].contains(&payload[3]);
                match has_content {
                    true => content = Some(Content { head, size: None, body: Vec::new() }),
                    false => out.push(head),
                }
            }
            2 => {
                let content = content.as_mut().expect("a header has its method");
                content.size = Some(u64::from_be_bytes(payload[4..12].try_into().unwrap()));
            }
            3 => content.as_mut().expect("a body has its method").body.extend_from_slice(payload),
            8 => out.push("heartbeat".to_owned()),
            other => panic!("frame of type {other}"),
        }
        if content.as_ref().is_some_and(|content| content.size == Some(content.body.len() as u64)) {
            let Content { head, body, .. } = content.take().unwrap();
            let shown =
                if body.len() > 40 { format!("{} bytes", body.len()) } else { String::from_utf8(body).unwrap() };
            out.push(format!("{head} {shown}"));
        }
    }
    assert!(content.is_none(), "content is whole");
    out
}

fn method(payload: &[u8]) -> String {
    let mut fields = Fields(payload);
    let ids = (fields.number(2), fields.number(2));
    match ids {
        (10, 10) => "start".into(),
        (10, 30) => format!("tune {} {} {}", fields.number(2), fields.number(4), fields.number(2)),
        (10, 41) => "open-ok".into(),
        (10, 50) | (20, 40) => {
            let (code, text) = (fields.number(2), fields.short());
            format!("close {code} {} {} {text}", fields.number(2), fields.number(2))
        }
        (10, 51) | (20, 41) => "close-ok".into(),
        (10, 60) => format!("blocked {}", fields.short()),
        (10, 61) => "unblocked".into(),
        (20, 11) => "open-ok".into(),
        (20, 21) => format!("flow-ok {}", fields.number(1)),
        (50, 11) => format!("declare-ok {} {} {}", fields.short(), fields.number(4), fields.number(4)),
        (50, 21) => "bind-ok".into(),
        (50, 41) => format!("delete-ok {}", fields.number(4)),
        (60, 11) => "qos-ok".into(),
        (60, 21) => format!("consume-ok {}", fields.short()),
        (60, 30) => format!("cancel {}", fields.short()),
        (60, 31) => format!("cancel-ok {}", fields.short()),
        (60, 50) => {
            let (code, _) = (fields.number(2), fields.short());
            format!("return {code} {} {}", fields.short(), fields.short())
        }
        (60, 60) => {
            let (consumer, tag, again) = (fields.short(), fields.number(8), fields.number(1));
            format!("deliver {consumer} {tag}{}", if again == 1 { "*" } else { "" })
        }
        (60, 71) => {
            let (tag, again) = (fields.number(8), fields.number(1));
            let _names = (fields.short(), fields.short());
            format!("get-ok {tag}{} {}", if again == 1 { "*" } else { "" }, fields.number(4))
        }
        (60, 72) => "get-empty".into(),
        (60, 80) => format!("ack {}{}", fields.number(8), if fields.number(1) == 1 { "+" } else { "" }),
        (60, 111) => "recover-ok".into(),
        (60, 120) => format!("nack {}{}", fields.number(8), if fields.number(1) == 1 { "+" } else { "" }),
        (85, 11) => "confirm-ok".into(),
        (90, 11) => "tx-ok".into(),
        (90, 21) => "commit-ok".into(),
        (90, 31) => "rollback-ok".into(),
        (class, id) => format!("method {class}.{id}"),
    }
}
