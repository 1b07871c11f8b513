//! The server's packets other than CONNACK and PUBLISH.
//!
//! Each function says whether it wrote a packet: a client that cannot take it, for its version or its Maximum Packet
//! Size, gets none.

use super::{Explanation, MAX_REMAINING, Parts, Peer, put_property, put_short, put_var, var_size};
use crate::codec::property::{Id, Value};
use crate::codec::{AckKind, Version};
use crate::reason::Reason;

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP; before 5.0 they have no reason.
#[inline]
pub fn ack(
    out: &mut Vec<u8>,
    peer: Peer,
    kind: AckKind,
    packet_id: u16,
    reason: Reason,
    explanation: Explanation<'_>,
) -> bool {
    let [high, low] = packet_id.to_be_bytes();
    let first = kind.first();
    // 3.4.2.1: reason and properties are left out from the end where they say nothing.
    if peer.version != Version::V5 || (reason == Reason::Success && explanation.is_empty()) {
        return put_short(out, peer, &[first, 2, high, low]);
    }
    let explanation = wanted(peer, explanation);
    if explanation.is_empty() {
        return short_reason(out, peer, [first, high, low], reason);
    }
    let head = [high, low, reason.code()];
    let size = out.len();
    let parts = Parts { first, head: &head, own: Vec::new(), explanation, tail: &[] };
    // An explanation that does not fit leaves an empty block of properties behind, which may go too.
    match parts.put(out, peer) && out.len() - size > 6 {
        true => true,
        false => {
            out.truncate(size);
            short_reason(out, peer, [first, high, low], reason)
        }
    }
}

fn short_reason(out: &mut Vec<u8>, peer: Peer, [first, high, low]: [u8; 3], reason: Reason) -> bool {
    match reason {
        Reason::Success => put_short(out, peer, &[first, 2, high, low]),
        _ => put_short(out, peer, &[first, 3, high, low, reason.code()]),
    }
}

/// MQTT5-3.1.2-29
fn wanted(peer: Peer, explanation: Explanation<'_>) -> Explanation<'_> {
    if peer.problem_information { explanation } else { Explanation::NONE }
}

/// Appends SUBACK with a reason for each filter, which before 5.0 is the granted QoS or 0x80 (MQTT-3.9.3-2).
pub fn suback(out: &mut Vec<u8>, peer: Peer, packet_id: u16, reasons: &[Reason], explanation: Explanation<'_>) -> bool {
    let code = |reason: &Reason| match peer.version {
        Version::V31 | Version::V311 if reason.is_error() => 0x80,
        _ => reason.code(),
    };
    let codes: Vec<u8> = reasons.iter().map(code).collect();
    listed(out, peer, 0x90, packet_id, &codes, explanation)
}

/// Appends UNSUBACK with a reason for each filter, which only 5.0 has.
pub fn unsuback(
    out: &mut Vec<u8>,
    peer: Peer,
    packet_id: u16,
    reasons: &[Reason],
    explanation: Explanation<'_>,
) -> bool {
    let codes: Vec<u8> = match peer.version {
        Version::V31 | Version::V311 => Vec::new(),
        Version::V5 => reasons.iter().map(|reason| reason.code()).collect(),
    };
    listed(out, peer, 0xb0, packet_id, &codes, explanation)
}

fn listed(
    out: &mut Vec<u8>,
    peer: Peer,
    first: u8,
    packet_id: u16,
    codes: &[u8],
    explanation: Explanation<'_>,
) -> bool {
    let head = packet_id.to_be_bytes();
    if peer.version == Version::V5 {
        let explanation = wanted(peer, explanation);
        return Parts { first, head: &head, own: Vec::new(), explanation, tail: codes }.put(out, peer);
    }
    let remaining = head.len() + codes.len();
    if remaining > MAX_REMAINING || 1 + var_size(remaining) + remaining > peer.max_packet as usize {
        return false;
    }
    out.push(first);
    put_var(out, remaining as u32);
    out.extend(head);
    out.extend_from_slice(codes);
    true
}

/// Appends PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend([0xd0, 0]);
}

/// Appends DISCONNECT, which a server sends only in 5.0, and only once it has accepted CONNECT (MQTT5-3.14.0-1).
pub fn disconnect(
    out: &mut Vec<u8>,
    peer: Peer,
    reason: Reason,
    server_reference: Option<&str>,
    explanation: Explanation<'_>,
) -> bool {
    if peer.version != Version::V5 {
        return false;
    }
    if server_reference.is_none() && explanation.is_empty() {
        return match reason {
            Reason::Success => put_short(out, peer, &[0xe0, 0]),
            _ => put_short(out, peer, &[0xe0, 1, reason.code()]),
        };
    }
    let mut own = Vec::new();
    if let Some(server) = server_reference {
        put_property(&mut own, Id::ServerReference, Value::Text(server));
    }
    Parts { first: 0xe0, head: &[reason.code()], own, explanation, tail: &[] }.put(out, peer)
        || put_short(out, peer, &[0xe0, 1, reason.code()])
}

/// Appends AUTH, which only 5.0 has.
pub fn auth(
    out: &mut Vec<u8>,
    peer: Peer,
    reason: Reason,
    method: &str,
    data: Option<&[u8]>,
    explanation: Explanation<'_>,
) -> bool {
    if peer.version != Version::V5 {
        return false;
    }
    let mut own = Vec::new();
    put_property(&mut own, Id::AuthenticationMethod, Value::Text(method));
    if let Some(data) = data {
        put_property(&mut own, Id::AuthenticationData, Value::Bytes(data));
    }
    Parts { first: 0xf0, head: &[reason.code()], own, explanation: wanted(peer, explanation), tail: &[] }.put(out, peer)
}
