//! Drops the capabilities of the process, which nix does not offer.
//!
//! Follows capabilities(7) and capset(2). When to drop them is left to `jail`.

use nix::errno::Errno;

/// _LINUX_CAPABILITY_VERSION_3: each set is two words.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the process itself.
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const HEADER: Header = Header {
    version: VERSION,
    pid: 0,
};

const NONE: [Sets; 2] = [Sets {
    effective: 0,
    permitted: 0,
    inheritable: 0,
}; 2];

/// Empties the effective, permitted and inheritable sets, and with them the ambient set, which is a subset.
///
/// A process without capabilities makes no call: a launcher's filter (SystemCallFilter= of systemd) may forbid
/// capset(2).
pub fn drop_all() -> nix::Result<()> {
    if sets()? == NONE {
        return Ok(());
    }
    let mut header = HEADER;
    // SAFETY: both pointers are to live values of the layout that this version has, two words of each set; the kernel
    // writes to the header alone, and only where it does not know the version.
    let status = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, NONE.as_ptr()) };
    Errno::result(status).map(drop)
}

fn sets() -> nix::Result<[Sets; 2]> {
    let mut header = HEADER;
    let mut sets = NONE;
    // SAFETY: as in `drop_all`; the kernel writes two words to each of the sets, which are writable here.
    let status = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(status).map(|_| sets)
}
