//! The C library's resolver: addresses to names and back, in the order of nsswitch.conf.
//!
//! Both calls may take minutes, and a signal does not end them: a caller that must not wait runs them in a child
//! (`sys::child`). The answers come from foreign name servers, and are checked in `peer`. Follows getnameinfo(3) and
//! getaddrinfo(3).

use std::ffi::{CStr, CString};
use std::fmt::{self, Display};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

// Functions of <netdb.h> that the libc package does not have. The numbers are the same in every C library on Linux.
unsafe extern "C" {
    /// The place of this thread's h_errno.
    fn __h_errno_location() -> *mut libc::c_int;
}
const TRY_AGAIN: libc::c_int = 2;
const NO_RECOVERY: libc::c_int = 3;

/// Takes the DNS's own answer to the last failed lookup: 0 if the DNS was not asked.
fn take_h_errno() -> libc::c_int {
    // SAFETY: takes nothing.
    let number = unsafe { __h_errno_location() };
    // SAFETY: it points to a number that lives as long as the thread, belongs to the thread, and has no reference.
    unsafe { number.replace(0) }
}

/// Why the resolver has no answer, with its own text.
#[derive(Debug)]
pub enum Failure {
    /// A code of getaddrinfo(3).
    Resolver(libc::c_int),
    /// EAI_SYSTEM: a system call failed.
    System(io::Error),
}

impl Failure {
    /// The failure for the code of a lookup. h_errno must have been taken before the lookup.
    fn from_code(code: libc::c_int) -> Failure {
        match (code, take_h_errno()) {
            (libc::EAI_SYSTEM, _) => Failure::System(io::Error::last_os_error()),
            // "No such name" also comes from a service after the DNS in nsswitch.conf that does not know the name, and
            // from a name server that rejects the question.
            (libc::EAI_NONAME, TRY_AGAIN) => Failure::Resolver(libc::EAI_AGAIN),
            (libc::EAI_NONAME, NO_RECOVERY) => Failure::Resolver(libc::EAI_FAIL),
            _ => Failure::Resolver(code),
        }
    }

    /// Whether the name does not exist or does not fit, as opposed to a failure for now.
    pub fn is_final(&self) -> bool {
        match self {
            Failure::Resolver(code) => FINAL.contains(code),
            Failure::System(_) => false,
        }
    }
}

/// The codes that are final. EAI_OVERFLOW is a name longer than any host name.
const FINAL: [libc::c_int; 4] = [
    libc::EAI_NONAME,
    libc::EAI_NODATA,
    EAI_ADDRFAMILY,
    libc::EAI_OVERFLOW,
];

/// Of <netdb.h>: the name has no address of the family.
const EAI_ADDRFAMILY: libc::c_int = -9;

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Resolver(code) => {
                // SAFETY: gai_strerror takes a number.
                let text = unsafe { libc::gai_strerror(*code) };
                // SAFETY: it returns a string that lives as long as the program, for unknown codes too.
                f.write_str(&unsafe { CStr::from_ptr(text) }.to_string_lossy())
            }
            Failure::System(error) => {
                let text = error.to_string();
                f.write_str(text.split(" (os error").next().unwrap_or_default())
            }
        }
    }
}

/// The name of the reverse lookup of `address`, without its final NUL. No name is a failure.
pub fn name_of(address: IpAddr) -> Result<CString, Failure> {
    let address = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut name = vec![0_u8; libc::NI_MAXHOST as usize];
    take_h_errno();
    // SAFETY: `address` is a live socket address and knows its length; `name` is live and writable for the length given,
    // and no service name is asked for. None of them is kept.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr().cast(),
            libc::NI_MAXHOST,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(Failure::from_code(code));
    }
    Ok(CStr::from_bytes_until_nul(&name)
        .unwrap_or_default()
        .to_owned())
}

/// The addresses of `name` in the family of `like`.
pub fn addresses_of(name: &CStr, like: IpAddr) -> Result<Vec<IpAddr>, Failure> {
    // SAFETY: addrinfo is plain numbers and pointers, for which all zeros is a valid value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match like {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = List(ptr::null_mut());
    take_h_errno();
    // SAFETY: `name` ends in NUL, `hints` is complete, and `list.0` is live and writable; it is set on success only.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &hints, &mut list.0) };
    if code != 0 {
        return Err(Failure::from_code(code));
    }
    let mut addresses = Vec::new();
    let mut entry = list.0.cast_const();
    // SAFETY: `entry` is null or an entry of the list, which is freed only when `list` is dropped.
    while let Some(info) = unsafe { entry.as_ref() } {
        addresses.extend(address_in(info));
        entry = info.ai_next;
    }
    Ok(addresses)
}

struct List(*mut libc::addrinfo);

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer comes from a successful getaddrinfo and is freed only here.
            unsafe { libc::freeaddrinfo(self.0) }
        }
    }
}

fn address_in(info: &libc::addrinfo) -> Option<IpAddr> {
    if info.ai_addr.is_null() {
        return None;
    }
    match info.ai_family {
        libc::AF_INET => {
            // SAFETY: for this family getaddrinfo points at a whole sockaddr_in, aligned for it.
            let sin = unsafe { &*info.ai_addr.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from_bits(u32::from_be(sin.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: for this family getaddrinfo points at a whole sockaddr_in6, aligned for it.
            let sin6 = unsafe { &*info.ai_addr.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(sin6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_a_name_that_has_the_loopback() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let name = name_of(loopback).expect("a hosts file with 127.0.0.1");
        let addresses = addresses_of(&name, loopback).expect("the way back");
        assert!(addresses.contains(&loopback), "{addresses:?}");
    }

    #[test]
    fn only_the_family_asked_for_is_returned() {
        let like = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let addresses = addresses_of(c"::1", like).expect("no lookup");
        assert_eq!(addresses, [like]);
        assert!(addresses_of(c"127.0.0.1", like).is_err());
    }

    #[test]
    fn only_what_a_name_server_has_answered_is_final() {
        let is_final = |code| Failure::Resolver(code).is_final();
        for code in [libc::EAI_NONAME, libc::EAI_NODATA, libc::EAI_OVERFLOW] {
            assert!(is_final(code), "{code}");
        }
        for code in [
            libc::EAI_AGAIN,
            libc::EAI_FAIL,
            libc::EAI_MEMORY,
            libc::EAI_FAMILY,
        ] {
            assert!(!is_final(code), "{code}");
        }
        assert!(!Failure::System(io::ErrorKind::OutOfMemory.into()).is_final());
    }

    #[test]
    fn failures_speak_as_the_c_library_does() {
        assert_eq!(
            Failure::Resolver(libc::EAI_NONAME).to_string(),
            "Name or service not known"
        );
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(Failure::System(refused).to_string(), "Connection refused");
    }
}
