//! Memory that may be refused, and a search in it that is as fast as the C library's.

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

/// Where `byte` is first in `bytes`. The standard library's own search looks at two words at a time, the C library's at as
/// many as the processor can.
pub fn position(byte: u8, bytes: &[u8]) -> Option<usize> {
    let start = bytes.as_ptr();
    // SAFETY: memchr reads at most `len` bytes of the live slice, and stops at the first that it looks for.
    let found = unsafe { libc::memchr(start.cast(), byte.into(), bytes.len()) };
    // The address of a byte of the slice, or null.
    (!found.is_null()).then(|| found.addr() - start.addr())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_byte_is_found_where_it_is_first(bytes in "[ab]{0,200}", byte in b'a'..=b'c') {
            let bytes = bytes.as_bytes();
            let expected = bytes.iter().position(|&b| b == byte);
            prop_assert_eq!(position(byte, bytes), expected);
        }
    }

    #[test]
    fn zeros_are_there_or_nothing_is() {
        for length in [0, 1, 65_536, 1_000_000] {
            assert_eq!(zeroed(length), Some(vec![0; length]));
        }
        assert_eq!(zeroed(usize::MAX), None);
        assert_eq!(zeroed(usize::MAX / 2), None);
    }
}
