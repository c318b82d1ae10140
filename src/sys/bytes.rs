//! Finds a byte: memchr(3).
//!
//! The C library compares 32 bytes at a time, and safe Rust a few; files of a million lines are searched for each
//! client.

/// The first place of `byte` in `bytes`.
pub fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    let start = bytes.as_ptr();
    // SAFETY: memchr reads `bytes.len()` bytes from `start` at most, and `bytes` is borrowed for so many.
    let found = unsafe { libc::memchr(start.cast(), i32::from(byte), bytes.len()) };
    if found.is_null() {
        return None;
    }
    // The found byte is in `bytes`, and so not before its start.
    Some(found as usize - start as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_one_is_found(bytes in proptest::collection::vec(0_u8..4, 0..200), byte in 0_u8..6) {
            prop_assert_eq!(position(&bytes, byte), bytes.iter().position(|&b| b == byte));
        }
    }

    #[test]
    fn any_byte_may_be_looked_for() {
        let all: Vec<u8> = (0..=255).collect();
        for byte in 0..=255 {
            assert_eq!(position(&all, byte), Some(usize::from(byte)));
        }
    }
}
