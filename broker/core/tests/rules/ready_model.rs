//! A ready list with its packed tail against a plain list.

use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::ready::{Entry, Ready};
use portolan_core::store::Position;
use proptest::prelude::*;
use proptest::sample::Index;

fn body(seq: u64) -> Message {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin: Origin::Amqp091,
        priority: 0,
        persistent: true,
        ttl: None,
    };
    Message::assemble(facts, b"", b"", b"", &seq.to_be_bytes())
}

#[derive(Clone, Debug)]
enum Step {
    /// Several at once, with gaps between their numbers; stored only when asked for or when others are.
    Push {
        count: u16,
        gap: u64,
        paged: bool,
        expires: u64,
        redelivered: bool,
        class: u64,
    },
    Pop(u16),
    PutBack(Index, bool),
    /// Bodies are asked for; some come.
    Load(u16),
    Move(Index, u32),
    Remove(Index),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let push = (1u16..400, 0u64..3000, any::<bool>(), 0u64..3, any::<bool>(), 0u64..8);
    prop_oneof![
        6 => push.prop_map(|(count, gap, paged, expires, redelivered, class)| {
            let gap = if gap > 2900 { gap } else { gap % 2 };
            Step::Push { count, gap, paged, expires, redelivered, class }
        }),
        5 => (1u16..300).prop_map(Step::Pop),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(which, slim)| Step::PutBack(which, slim)),
        4 => (0u16..600).prop_map(Step::Load),
        4 => (any::<Index>(), 0u32..3).prop_map(|(which, segment)| Step::Move(which, segment)),
        1 => any::<Index>().prop_map(Step::Remove),
        1 => Just(Step::Drain),
    ]
}

/// What can be told of an entry from outside.
fn shown(entry: &Entry) -> (u64, Option<Position>, u64, u32, bool) {
    (entry.seq, entry.position, entry.expires_at, entry.returns, entry.redelivered)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_changed_or_out_of_order(steps in prop::collection::vec(step(), 1..40)) {
        let mut ready = Ready::default();
        let mut model: Vec<Entry> = Vec::new();
        let mut out: Vec<Entry> = Vec::new();
        let (mut seq, mut place, mut segment) = (1u64, 8u64, 1u64);
        for step in steps {
            match step {
                Step::Push { count, gap, paged, expires, redelivered, class } => {
                    for _ in 0..count {
                        seq += 1 + gap;
                        place += 8;
                        let position = Position::from_number(segment << 32 | place | class).unwrap();
                        let entry = Entry {
                            seq,
                            position: Some(position),
                            message: None,
                            expires_at: expires * seq,
                            returns: expires as u32 * (seq % 3) as u32,
                            redelivered,
                        };
                        if paged || ready.has_tail() {
                            ready.push_paged(&entry, position);
                        } else {
                            ready.push(Entry { message: Some(body(seq)), ..entry.clone() });
                        }
                        model.push(entry);
                    }
                }
                Step::Pop(count) => {
                    for _ in 0..count {
                        if ready.front().is_none() {
                            ready.end_wait();
                            ready.wanted();
                        }
                        let popped = ready.pop();
                        prop_assert_eq!(popped.is_none(), model.is_empty());
                        if let Some(entry) = popped {
                            prop_assert_eq!(shown(&entry), shown(&model.remove(0)));
                            if let Some(message) = &entry.message {
                                prop_assert_eq!(message.body(), entry.seq.to_be_bytes());
                            }
                            out.push(entry);
                        }
                    }
                }
                Step::PutBack(_, _) if out.is_empty() => {}
                Step::PutBack(which, slim) => {
                    let mut entry = out.remove(which.index(out.len()));
                    entry.redelivered = true;
                    if slim {
                        entry.message = None;
                    }
                    let at = model.partition_point(|known| known.seq < entry.seq);
                    model.insert(at, entry.clone());
                    ready.put_back(entry);
                }
                Step::Load(count) => {
                    let wanted = ready.wanted();
                    prop_assert!(wanted.iter().is_sorted());
                    for (seq, position) in wanted.into_iter().take(count.into()) {
                        let known = model.iter().find(|entry| entry.seq == seq);
                        prop_assert_eq!(known.and_then(|entry| entry.position), Some(position));
                        prop_assert!(ready.fill(seq, body(seq)));
                    }
                    ready.end_wait();
                }
                Step::Move(_, _) if model.is_empty() => {}
                Step::Move(which, further) => {
                    segment += u64::from(further);
                    place += 8;
                    let entry = which.get(&model).clone();
                    let to = Position::from_number(segment << 32 | place | 3).unwrap();
                    let from = entry.position.unwrap();
                    prop_assert_eq!(ready.position(entry.seq), Some(from));
                    prop_assert!(!ready.relocate(entry.seq, to, from), "not there");
                    prop_assert!(ready.relocate(entry.seq, from, to));
                    let at = model.partition_point(|known| known.seq < entry.seq);
                    model[at].position = Some(to);
                }
                Step::Remove(_) if model.is_empty() => {}
                Step::Remove(which) => {
                    let seq = which.get(&model).seq;
                    let at = model.partition_point(|known| known.seq < seq);
                    let removed = ready.remove(seq);
                    prop_assert_eq!(removed.as_ref().map(shown), Some(shown(&model.remove(at))));
                }
                Step::Drain => {
                    let all: Vec<_> = ready.drain().iter().map(shown).collect();
                    prop_assert_eq!(all, model.drain(..).map(|entry| shown(&entry)).collect::<Vec<_>>());
                    prop_assert_eq!(ready.memory(), 0);
                }
            }
            prop_assert_eq!(ready.len(), model.len());
            prop_assert_eq!(ready.is_empty(), model.is_empty());
        }
    }
}
