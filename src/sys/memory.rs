//! Memory that may be refused.

use std::alloc::{Layout, alloc_zeroed};

/// `length` zeros, or nothing where there is no memory for them. The allocator knows which memory is new and zero already,
/// and does not write to that: pages that are only going to be overwritten are touched once.
pub fn zeroed(length: usize) -> Option<Vec<u8>> {
    if length == 0 {
        return Some(Vec::new());
    }
    let layout = Layout::array::<u8>(length).ok()?;
    // SAFETY: the layout's size is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: `start` comes from the global allocator, with the layout of a Vec of bytes whose capacity is `length`; all of
    // them are initialised, to zero; nobody else has the pointer.
    Some(unsafe { Vec::from_raw_parts(start, length, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_there_or_nothing_is() {
        for length in [0, 1, 65_536, 1_000_000] {
            assert_eq!(zeroed(length), Some(vec![0; length]));
        }
        assert_eq!(zeroed(usize::MAX), None);
        assert_eq!(zeroed(usize::MAX / 2), None);
    }
}
