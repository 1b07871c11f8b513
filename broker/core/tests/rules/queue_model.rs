//! A queue against a model: each message is in exactly one place, and first deliveries are in publish order.

use std::collections::{BTreeMap, BTreeSet};

use portolan_core::broker::Settings;
use portolan_core::delivery::Outcome;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::client::{Client, Got};
use crate::kit::{Claim, Kit, Post, int, post, settings, text};

#[derive(Clone, Debug)]
enum Step {
    Publish { persistent: bool, ttl: Option<u64> },
    Settle(Index, Outcome),
    Get(bool),
    Pass(u64),
    Load,
    Move,
    Leave,
    Join(Option<u32>),
    Crash(bool),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![Outcome::Accepted, Outcome::Rejected, Outcome::Released]);
    prop_oneof![
        8 => (any::<bool>(), prop::option::weighted(0.3, 1u64..30)).prop_map(|(persistent, ttl)| Step::Publish { persistent, ttl }),
        6 => (any::<Index>(), outcome).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
        2 => any::<bool>().prop_map(Step::Get),
        2 => (0u64..20).prop_map(Step::Pass),
        4 => Just(Step::Load),
        2 => Just(Step::Move),
        1 => Just(Step::Leave),
        2 => prop::option::of(1u32..5).prop_map(Step::Join),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => Just(Step::Purge),
    ]
}

#[derive(Clone, Debug)]
struct Shape {
    max_length: Option<i64>,
    reject: bool,
    dead_letters: bool,
    quorum: bool,
    queue_memory: usize,
    budget: u64,
}

fn shape() -> impl Strategy<Value = Shape> {
    let memory = prop::sample::select(vec![0usize, 200, 1 << 20]);
    let budget = prop::sample::select(vec![0u64, 300, 1 << 30]);
    (prop::option::of(1i64..8), any::<bool>(), any::<bool>(), any::<bool>(), memory, budget).prop_map(
        |(max_length, reject, dead_letters, quorum, queue_memory, budget)| Shape {
            max_length,
            reject,
            dead_letters,
            quorum,
            queue_memory,
            budget,
        },
    )
}

struct World {
    kit: Kit,
    client: std::sync::Arc<Client>,
    shape: Shape,
    held: Vec<Got>,
    consumer: Option<portolan_core::delivery::ConsumerRef>,
    /// Published and not known to have ended: body, and whether it was persistent.
    alive: BTreeMap<String, bool>,
    /// Seen by a client at least once.
    seen: BTreeSet<String>,
    published: u32,
}

impl World {
    fn new(shape: Shape) -> Self {
        let budgets = Settings { queue_memory: shape.queue_memory, memory_budget: shape.budget, ..settings() };
        let kit = Kit::with(budgets);
        kit.queue("dead", &[]);
        let mut arguments = Vec::new();
        arguments.extend(shape.max_length.map(|most| ("x-max-length", int(most))));
        if shape.reject {
            arguments.push(("x-overflow", text("reject-publish")));
        }
        if shape.dead_letters {
            arguments.push(("x-dead-letter-exchange", text("")));
            arguments.push(("x-dead-letter-routing-key", text("dead")));
        }
        if shape.quorum {
            arguments.push(("x-queue-type", text("quorum")));
            arguments.push(("x-delivery-limit", int(2)));
        }
        kit.queue("q", &arguments);
        let client = Client::new();
        let (alive, seen) = Default::default();
        Self { kit, client, shape, held: Vec::new(), consumer: None, alive, seen, published: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { persistent, ttl } => {
                let body = format!("{:04}", self.published);
                self.published += 1;
                let refused = self.kit.refused.get();
                self.alive.insert(body.clone(), persistent);
                self.kit.publish("q", Post { persistent, ttl, ..post(&body) });
                if self.kit.refused.get() > refused {
                    assert!(self.shape.reject, "only a queue that refuses refuses");
                    self.alive.remove(&body);
                }
            }
            Step::Settle(_, _) if self.held.is_empty() => {}
            Step::Settle(which, outcome) => {
                let got = self.held.remove(which.index(self.held.len()));
                if outcome == Outcome::Accepted {
                    self.alive.remove(&got.body);
                }
                self.kit.settle(got.settle, outcome);
            }
            Step::Get(settled) => {
                if let Some(got) = self.kit.get("q", settled) {
                    let body = String::from_utf8_lossy(got.message.body()).into_owned();
                    self.saw(&body, got.redelivered);
                    match got.settle {
                        Some(_) => self.held.push(Got {
                            consumer: u32::MAX,
                            body,
                            redelivered: got.redelivered,
                            released: false,
                            returns: got.returns,
                            settle: got.settle,
                            from: portolan_core::delivery::ConsumerRef { queue: got.settle.unwrap().queue, key: 0 },
                        }),
                        None => drop(self.alive.remove(&body)),
                    }
                }
            }
            Step::Pass(ms) => self.kit.pass(ms),
            Step::Load => assert!(self.kit.load() < 10_000),
            Step::Move => {
                // What is on its way to the dead or already gone may be left behind; nothing else.
                self.kit.load();
                assert_eq!(self.kit.move_all(), [""; 0]);
            }
            Step::Leave => {
                if let Some(consumer) = self.consumer.take() {
                    self.kit.cancel(consumer);
                }
            }
            Step::Join(_) if self.consumer.is_some() => {}
            Step::Join(credit) => {
                self.consumer = Some(self.kit.consume("q", &self.client, Claim { credit, ..Claim::default() }));
            }
            Step::Crash(clean) => self.restart(clean),
            Step::Purge => {
                self.kit.load();
                self.collect();
                let held: BTreeSet<_> = self.held.iter().map(|got| got.body.clone()).collect();
                let dead: BTreeSet<_> = self.look("dead").into_iter().collect();
                self.kit.purge("q");
                self.alive.retain(|body, _| held.contains(body) || dead.contains(body));
            }
        }
        self.collect();
    }

    fn restart(&mut self, clean: bool) {
        self.kit.load();
        self.collect();
        let dead = self.look("dead");
        let kit = std::mem::replace(&mut self.kit, Kit::new());
        let (kit, _) = kit.restart(clean);
        self.kit = kit;
        self.held.clear();
        self.consumer = None;
        // A quorum queue keeps everything, but its dead-letter queue is a classic one.
        let quorum = self.shape.quorum;
        self.alive.retain(|body, persistent| *persistent || quorum && !dead.contains(body));
    }

    fn saw(&mut self, body: &str, redelivered: bool) {
        assert!(self.alive.contains_key(body), "{body} was delivered after its end");
        let again = !self.seen.insert(body.to_owned());
        assert!(!again || redelivered, "{body} came again unmarked");
    }

    fn collect(&mut self) {
        for got in self.client.take_all() {
            assert!(!self.held.iter().any(|held| held.body == got.body), "{} is held twice", got.body);
            self.saw(&got.body.clone(), got.redelivered);
            self.held.push(got);
        }
    }

    /// Everything in a queue, put back where it was.
    fn look(&self, queue: &str) -> Vec<String> {
        let got: Vec<_> = std::iter::from_fn(|| self.kit.get(queue, false)).collect();
        let bodies = got.iter().map(|got| String::from_utf8_lossy(got.message.body()).into_owned()).collect();
        self.kit.settle_all(got.iter().map(|got| got.settle), Outcome::Released);
        bodies
    }

    /// At the end everything that is not known to have ended is somewhere, once.
    fn count(&mut self) {
        self.kit.load();
        self.collect();
        if let Some(consumer) = self.consumer.take() {
            self.kit.cancel(consumer);
        }
        let ready = self.kit.drain("q");
        // What expired meanwhile is read on its way to the dead.
        self.kit.load();
        let dead = self.kit.drain("dead");
        let in_order = ready.iter().map(|body| body.trim_end_matches('*'));
        assert!(in_order.clone().is_sorted(), "{ready:?}");
        let held = self.held.iter().map(|got| &*got.body);
        let dead = dead.iter().map(|body| body.trim_end_matches('*'));
        let mut places: Vec<&str> = in_order.chain(held).chain(dead).collect();
        places.sort_unstable();
        let once: BTreeSet<&str> = places.iter().copied().collect();
        assert_eq!(once.len(), places.len(), "something is in two places: {places:?}");
        assert!(once.iter().all(|body| self.alive.contains_key(*body)), "something came back from its end");
        if self.shape.dead_letters {
            let missing: Vec<_> = self.alive.keys().filter(|body| !once.contains(&***body)).collect();
            assert!(missing.is_empty(), "{missing:?} are nowhere");
        }
        self.kit.settle_all(std::mem::take(&mut self.held).iter().map(|got| got.settle), Outcome::Accepted);
        assert_eq!(self.kit.journal.records(), 0, "the journal holds what no queue does");
        assert_eq!(self.kit.broker.memory(), 0, "memory is accounted for");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_is_in_exactly_one_place(shape in shape(), steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new(shape);
        for step in steps {
            world.step(step);
        }
        world.count();
    }
}
