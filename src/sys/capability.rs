//! The capabilities of the process, which nix does not offer.
//!
//! Authority: capabilities(7), capset(2).

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
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the effective, permitted and inheritable sets; the ambient one, which has to be within these, goes with them.
pub fn drop_all() -> nix::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let none = [Sets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both pointers are to live values of the layout that this version has, two words of each set; the kernel
    // writes to the header alone, and only where it does not know the version.
    let status = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    Errno::result(status).map(drop)
}
