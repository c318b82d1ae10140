//! Makes queue ids, and the path of a queue file.
//!
//! An id consists of a time and of the file's inode number, so that two files on one disk cannot have the same id at
//! the same time. Long ids have the whole time in front and are never repeated. Follows `tests/spec/queue-file.md`,
//! sections 1 and 2.1.

use std::borrow::Cow;

use crate::sys::time::Moment;

/// Digits without vowels, so that no id is a word. Inodes are written in base 51: `z` ends the time.
const DIGITS: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
const TIME_BASE: u64 = 52;
const INODE_BASE: u64 = 51;

/// The lengths of the parts of a long id: at least this many digits of seconds, exactly this many of microseconds.
const SECS_WIDTH: usize = 6;
const USECS_WIDTH: usize = 4;

/// The name of a file in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    pub text: String,
    usecs: u32,
    long: bool,
}

impl Id {
    /// The id of the file `inode` at this time; `long` is enable_long_queue_ids.
    pub fn new(at: Moment, inode: u64, long: bool) -> Id {
        let Moment { secs, usecs } = at;
        let text = if long {
            let mut text = in_base(TIME_BASE, u64::try_from(secs).unwrap_or(0), SECS_WIDTH);
            text.push_str(&in_base(TIME_BASE, u64::from(usecs), USECS_WIDTH));
            text.push('z');
            text.push_str(&in_base(INODE_BASE, inode, 1));
            text
        } else {
            format!("{usecs:05X}{inode:X}")
        };
        Id { text, usecs, long }
    }

    /// The file's path below a queue with `depth` levels of subdirectories, one for each leading character.
    ///
    /// The leading characters of a long id change too slowly; there the hexadecimal microseconds are used.
    pub fn path(&self, depth: usize) -> String {
        let spread = if self.long {
            Cow::Owned(format!("{:05X}", self.usecs))
        } else {
            Cow::Borrowed(&self.text)
        };
        let levels = spread.chars().chain(std::iter::repeat('_')).take(depth);
        let mut path: String = levels.flat_map(|level| [level, '/']).collect();
        path.push_str(&self.text);
        path
    }
}

fn in_base(base: u64, mut number: u64, width: usize) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.len() < width {
        let digit = usize::try_from(number % base).unwrap_or(0);
        digits.push(DIGITS.get(digit).map_or('0', |&digit| char::from(digit)));
        number /= base;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INODE: u64 = 10_061_735;

    #[test]
    fn ids_of_the_specification() {
        for (secs, usecs, inode, short, long) in [
            (
                1_795_355_473,
                257_069,
                INODE,
                "3EC2D9987A7",
                "4jXVpn1q3dz1SqNv",
            ),
            (
                1_700_000_000,
                123_456,
                INODE,
                "1E2409987A7",
                "4SVLCh0sf8z1SqNv",
            ),
            (
                1_795_355_473,
                999_999,
                1 << 32,
                "F423F100000000",
                "4jXVpn75plzDQqwN1",
            ),
        ] {
            assert_eq!(Id::new(Moment { secs, usecs }, inode, false).text, short);
            assert_eq!(Id::new(Moment { secs, usecs }, inode, true).text, long);
        }
    }

    #[test]
    fn a_file_is_as_deep_as_its_queue() {
        let (secs, usecs) = (1_795_355_473, 257_069);
        let at = Moment { secs, usecs };
        let (short, long) = (Id::new(at, INODE, false), Id::new(at, INODE, true));
        assert_eq!(short.path(0), "3EC2D9987A7");
        assert_eq!(short.path(1), "3/3EC2D9987A7");
        assert_eq!(short.path(7), "3/E/C/2/D/9/9/3EC2D9987A7");
        assert_eq!(long.path(2), "3/E/4jXVpn1q3dz1SqNv");
        assert_eq!(long.path(7), "3/E/C/2/D/_/_/4jXVpn1q3dz1SqNv");
    }

    proptest! {
        /// Postfix tells long ids from short ones by it.
        #[test]
        fn a_long_id_has_its_last_z_at_ten_or_later(
            secs in 0i64..1 << 40, usecs in 0u32..1_000_000, inode: u64
        ) {
            let is_long = |id: Id| id.text.rfind('z').is_some_and(|at| at >= 10);
            let at = Moment { secs, usecs };
            prop_assert!(is_long(Id::new(at, inode, true)));
            prop_assert!(!is_long(Id::new(at, inode, false)));
        }
    }
}
