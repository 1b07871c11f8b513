//! Memory for argon2: straight from the kernel, and back to it at once.
//!
//! A hash takes 19 MiB for 20 ms. Left to the allocator, they would stay resident after the first login until other
//! allocations happen to make it give them back, and what is allocated meanwhile would seem to cost nothing.

use std::io;

use argon2::Block;
use memmap2::{Advice, MmapMut};

/// A mapping of its own, which ends with this value.
pub(super) struct Blocks(MmapMut);

impl Blocks {
    /// So many blocks, all zero.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(Block::SIZE).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = MmapMut::map_anon(bytes)?;
        // Fewer page faults; a kernel without huge pages refuses, which does no harm.
        let _ = memory.advise(Advice::HugePage);
        Ok(Self(memory))
    }
}

impl AsMut<[Block]> for Blocks {
    #[allow(unsafe_code)]
    fn as_mut(&mut self) -> &mut [Block] {
        // SAFETY: a block is an array of u64, for which any bytes are valid, and `align_to_mut` sees to the alignment.
        let (before, blocks, after) = unsafe { self.0.align_to_mut::<Block>() };
        debug_assert!(before.is_empty() && after.is_empty(), "a mapping begins with a page");
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether an address is mapped.
    fn is_mapped(address: usize) -> bool {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-')).unwrap();
            let bound = |text| usize::from_str_radix(text, 16).unwrap();
            (bound(range.0)..bound(range.1)).contains(&address)
        })
    }

    #[test]
    fn the_kernel_has_the_memory_back_at_once() {
        // So large that nothing else of this process takes its place.
        let mut blocks = Blocks::new(1 << 20).unwrap();
        assert_eq!(blocks.as_mut().len(), 1 << 20);
        let address = blocks.as_mut().as_ptr() as usize + (1 << 29);
        assert!(is_mapped(address));
        drop(blocks);
        assert!(!is_mapped(address));
    }
}
