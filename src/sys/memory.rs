//! Memory that may be refused: an allocation that can fail, and a limit for a process.
//!
//! Follows setrlimit(2) and proc(5). How much memory a session may take is left to `service`.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use super::ignore;

/// The launcher's soft limit of data, after [`limit_data`] has changed it.
static LAUNCHERS_LIMIT: AtomicU64 = AtomicU64::new(UNCHANGED);
const UNCHANGED: u64 = RLIM_INFINITY - 1;

/// `length` zeros; `None` if there is no memory for them. The allocator knows which memory is new and zero, and does
/// not write to it: pages that will be overwritten are touched once.
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
    // SAFETY: `start` comes from the global allocator, with the layout of a Vec of bytes of capacity `length`; all
    // bytes are initialised to zero; there is no other copy of the pointer.
    Some(unsafe { Vec::from_raw_parts(start, length, length) })
}

/// Limits the data of this process and its children to the present size and `more` bytes. The launcher's limit is never
/// exceeded. Programs get the launcher's limit back: [`unlimit_data`].
pub fn limit_data(more: u64) -> io::Result<()> {
    let limit = data_size()?.saturating_add(more);
    let (soft, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    if limit < soft {
        setrlimit(Resource::RLIMIT_DATA, limit, hard)?;
        LAUNCHERS_LIMIT.store(soft, Relaxed);
    }
    Ok(())
}

/// In a child before exec: undoes [`limit_data`]. Async-signal-safe.
pub fn unlimit_data() {
    let soft: rlim_t = LAUNCHERS_LIMIT.load(Relaxed);
    if soft != UNCHANGED {
        // It cannot fail for an earlier limit. If it did, the program would have less memory.
        ignore(
            getrlimit(Resource::RLIMIT_DATA)
                .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_DATA, soft, hard)),
        );
    }
}

/// The part of this process's memory that the limit counts: private and writable. The kernel's figure includes the
/// stack, in pages, which may be larger than 4096 bytes on aarch64.
fn data_size() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = statm.split(' ').nth(5).and_then(|data| data.parse().ok());
    let unknown = || io::Error::other("/proc/self/statm has no size of the data");
    Ok(pages.ok_or_else(unknown)?.saturating_mul(page_size()))
}

fn page_size() -> u64 {
    // SAFETY: sysconf takes a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::tests::alone;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn data_may_grow_by_so_much_and_no_more() {
        assert!(alone(|| {
            let before = getrlimit(Resource::RLIMIT_DATA).unwrap();
            let most = |mebibytes: usize| zeroed(mebibytes << 20).map(|bytes| bytes.len());
            // The C library's allocator never has so much in stock.
            limit_data(200 * MEBIBYTE).unwrap();
            let (fits, too_much) = (most(190), most(210));
            // A second limit cannot exceed the first.
            limit_data(400 * MEBIBYTE).unwrap();
            let still_too_much = most(210);
            unlimit_data();
            let after = getrlimit(Resource::RLIMIT_DATA).unwrap();
            fits.is_some()
                && too_much.is_none()
                && still_too_much.is_none()
                && after == before
                && most(210).is_some()
        }));
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
