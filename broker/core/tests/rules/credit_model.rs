//! Consumers against a model that counts.

use proptest::prelude::*;
use proptest::sample::Index;

use portolan_core::delivery::Outcome;

use crate::client::{Client, Got};
use crate::kit::{Claim, Kit};

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Settle(Index, bool),
    Join(Option<u32>, i32),
    Leave(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..5).prop_map(Step::Publish),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(which, requeue)| Step::Settle(which, requeue)),
        1 => (prop::option::of(1u32..4), 0i32..3).prop_map(|(credit, priority)| Step::Join(credit, priority)),
        1 => any::<Index>().prop_map(Step::Leave),
    ]
}

struct Member {
    number: u32,
    credit: Option<u32>,
    priority: i32,
    at: portolan_core::delivery::ConsumerRef,
    held: u32,
}

impl Member {
    fn has_credit(&self) -> bool {
        self.credit.is_none_or(|credit| self.held < credit)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No consumer ever holds more than its credit, none with credit is passed over for a lower one, and nothing
    /// waits while someone could take it.
    #[test]
    fn credit_is_kept_and_used(steps in prop::collection::vec(step(), 1..60)) {
        let (kit, client) = (Kit::new(), Client::new());
        kit.queue("q", &[]);
        let mut members: Vec<Member> = Vec::new();
        let mut held: Vec<Got> = Vec::new();
        let mut published = 0;
        let mut joined = 0;
        for step in steps {
            match step {
                Step::Publish(count) => {
                    for _ in 0..count {
                        kit.fill("q", &[&format!("{published:04}")]);
                        published += 1;
                    }
                }
                Step::Settle(_, _) if held.is_empty() => {}
                Step::Settle(which, requeue) => {
                    let one = held.remove(which.index(held.len()));
                    if let Some(member) = members.iter_mut().find(|member| member.number == one.consumer) {
                        member.held -= 1;
                    }
                    kit.settle(one.settle, if requeue { Outcome::Released } else { Outcome::Accepted });
                }
                Step::Join(credit, priority) => {
                    joined += 1;
                    let claim = Claim { number: joined, credit, priority, ..Claim::default() };
                    let at = kit.consume("q", &client, claim);
                    members.push(Member { number: joined, credit, priority, at, held: 0 });
                }
                Step::Leave(_) if members.is_empty() => {}
                Step::Leave(which) => {
                    let gone = members.remove(which.index(members.len()));
                    kit.cancel(gone.at);
                }
            }
            for got in client.take_all() {
                let taker = members.iter().position(|member| member.number == got.consumer);
                let Some(taker) = taker else { panic!("{} has left", got.consumer) };
                prop_assert!(members[taker].has_credit(), "over its credit");
                let better = members.iter().any(|other| other.has_credit() && other.priority > members[taker].priority);
                prop_assert!(!better, "a higher priority was passed over");
                members[taker].held += 1;
                held.push(got);
            }
            let census = kit.broker.census();
            prop_assert_eq!(census.unsettled, held.len() as u64);
            prop_assert!(census.ready == 0 || !members.iter().any(Member::has_credit), "someone could take it");
        }
    }
}
