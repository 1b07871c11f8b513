//! Reading the facts in force: those of the checkpoint, and what the journal has learned since.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_core::store::StoreError;

use crate::checkpoint::Known;
use crate::encode::{self, Kind, Stored};
use crate::filesystem::File;
use crate::journal::Shared;
use crate::journal::buffer::MirrorFact;
use crate::journal::frame;
use crate::journal::recover::write_gap;
use crate::journal::replay::FactAt;
use crate::journal::scan::{Damage, Search};
use crate::journal::segment;
use crate::journal::window::Window;
use crate::options::OnDamage;

/// Bytes read at once: facts lie thinly among messages.
const AHEAD: usize = 64 << 10;
/// So many facts are read from the journal sooner than sled opens, which syncs files of its own before it answers.
const FEW: usize = 1024;

struct Reader<'s> {
    shared: &'s Shared,
    window: Window,
    open: Option<(u32, Arc<dyn File>, u64)>,
    on_damage: OnDamage,
}

/// What a record of a fact said.
type Said = (Vec<u8>, Option<Vec<u8>>);

impl Shared {
    /// The facts in force after those at `places`, read from there or, where the checkpoint knows them, from that.
    pub(crate) fn facts(&self, places: &[FactAt]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        if places.len() <= FEW {
            match self.facts_since(places, None, OnDamage::Refuse) {
                // What the journal lost may still be in the checkpoint.
                Err(StoreError::Damaged { .. }) => {}
                read => return read,
            }
        }
        let known = self.checkpoint.finish_opening();
        self.facts_since(places, known, self.options.on_damage)
    }

    /// The facts in force after `known` and those at `places` that came later.
    pub(crate) fn facts_since(
        &self,
        places: &[FactAt],
        known: Option<Known>,
        on_damage: OnDamage,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let (since, mut facts) = known.unwrap_or_default();
        let mirroring = self.checkpoint.is_open();
        let mut mirror = Vec::new();
        let mut reader = Reader { shared: self, window: Window::default(), open: None, on_damage };
        for place in places.iter().filter(|place| place.index > since) {
            let Some((key, value)) = reader.read(place)? else { continue };
            if mirroring {
                mirror.push(MirrorFact { index: place.index, key: key.clone(), value: value.clone() });
            }
            match value {
                Some(value) => facts.insert(key, value),
                None => facts.remove(&key),
            };
        }
        let mut state = self.state.lock();
        state.mirror = mirror;
        state.mirroring = mirroring;
        // What it had was not looked at.
        state.mirror_anew |= self.checkpoint.is_opening();
        Ok(facts)
    }
}

impl Reader<'_> {
    /// What is said at that place, `None` where an operator chose to go on without it.
    fn read(&mut self, place: &FactAt) -> Result<Option<Said>, StoreError> {
        let shared = self.shared;
        let number = place.segment;
        let failed = |error| shared.io("cannot read", number, error);
        let (file, length) = match &self.open {
            Some((open, file, length)) if *open == number => (Arc::clone(file), *length),
            _ => {
                self.window.reset();
                let file = shared.open_segment(number).map_err(failed)?;
                let length = file.length().map_err(failed)?;
                self.open = Some((number, Arc::clone(&file), length));
                (file, length)
            }
        };
        let offset = u64::from(place.offset);
        let frame = self.window.frame(&*file, offset, length, frame::seed(number), AHEAD).map_err(failed)?;
        if let Some(frame) = frame {
            match encode::decode(frame.head.kind, frame.payload) {
                Ok(Stored::Fact { key, value }) => {
                    return Ok(Some((key.to_vec(), value.map(<[u8]>::to_vec))));
                }
                _ if frame.head.kind == Kind::Gap => return Ok(None),
                _ => {}
            }
        }
        let what = "a record of the catalogue fails its checksum: restore the file from a backup, or start once with \
                    on_damage = \"repair\" to go on without it";
        let damage = StoreError::Damaged { file: segment::path(&shared.folder, number), offset, what: what.into() };
        if self.on_damage == OnDamage::Refuse {
            return Err(damage);
        }
        tracing::error!(%damage, "damage skipped as asked");
        self.fill(place, &*file, length).map_err(failed)?;
        Ok(None)
    }

    /// Has later starts skip it without asking.
    fn fill(&mut self, place: &FactAt, file: &dyn File, length: u64) -> std::io::Result<()> {
        let from = u64::from(place.offset);
        let mut search = Search { file, length, seed: frame::seed(place.segment), least: place.index };
        let sound = search.next(&mut self.window, from + 8)?;
        let (until, next) = sound.map_or((length, place.index + 1), |(at, _, index, _)| (at, index));
        self.window.reset();
        write_gap(file, place.segment, &Damage { from, until, lost: place.index, next })
    }
}
