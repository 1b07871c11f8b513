//! A message that says who it is and shows when a byte of it changed.

/// Which publish this was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) round: u32,
    pub(crate) publisher: u8,
    pub(crate) number: u32,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "round {} publisher {} message {}", self.round, self.publisher, self.number)
    }
}

const HEAD: usize = 13;

/// The body of a message: its id, its length, and bytes that follow from both.
pub(crate) fn encode(id: Id, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + size);
    body.extend_from_slice(&id.round.to_be_bytes());
    body.push(id.publisher);
    body.extend_from_slice(&id.number.to_be_bytes());
    body.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(filler(id).take(size));
    body
}

/// The id of a body, or what is wrong with it.
pub(crate) fn decode(body: &[u8]) -> Result<Id, String> {
    let damaged = || format!("a body of {} octets that nobody sent", body.len());
    let head: &[u8; HEAD] = body.first_chunk().ok_or_else(damaged)?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let id = Id { round: word(0), publisher: head[4], number: word(5) };
    let rest = &body[HEAD..];
    if rest.len() != word(9) as usize || !rest.iter().copied().eq(filler(id).take(rest.len())) {
        return Err(format!("{id} is damaged"));
    }
    Ok(id)
}

/// A cheap sequence that differs from message to message.
fn filler(id: Id) -> impl Iterator<Item = u8> {
    let mut state = u64::from(id.round) << 40 ^ u64::from(id.publisher) << 32 ^ u64::from(id.number);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    })
    .flatten()
}
