//! What a confined process must not be able to do, tried in earnest. No release build has this.
//!
//! Each attempt is one system call, made as by somebody who has taken the process over, and harmless where nothing stops
//! it. When it is made is for `service` to say, and why it must not come back for `jail`.

use std::io;

use nix::errno::Errno;

const PAGE: libc::c_long = 4096;

/// Makes the call that goes by the name `what`. It comes back only where there is no filter; what the kernel answered
/// then, or nothing if there is no such name.
pub fn attempt(what: &str) -> Option<io::Result<()>> {
    let path = |path: &'static [u8]| path.as_ptr() as libc::c_long;
    let number = |number: libc::c_int| libc::c_long::from(number);
    let executable = number(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let own = libc::c_long::from(std::process::id());
    let (call, arguments): (libc::c_long, &[libc::c_long]) = match what {
        "open" => (
            libc::SYS_openat,
            &[number(libc::AT_FDCWD), path(b"/dev/null\0")],
        ),
        "socket" => (
            libc::SYS_socket,
            &[number(libc::AF_UNIX), number(libc::SOCK_STREAM)],
        ),
        // The client's connection, to no address.
        "connect" => (libc::SYS_connect, &[0]),
        "execve" => (libc::SYS_execve, &[path(b"/nowhere\0")]),
        "fork" => (libc::SYS_clone, &[number(libc::SIGCHLD)]),
        // There is no process 0.
        "ptrace" => (libc::SYS_ptrace, &[libc::PTRACE_ATTACH.into()]),
        "kill" => (libc::SYS_kill, &[own]),
        "mmap" => (libc::SYS_mmap, &[0, PAGE, executable, anonymous, -1]),
        "mprotect" => (libc::SYS_mprotect, &[0, 0, executable]),
        _ => return None,
    };
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Some(make(call, all))
}

fn make(call: libc::c_long, [a, b, c, d, e, f]: [libc::c_long; 6]) -> io::Result<()> {
    // SAFETY: the calls above are given numbers, null, or literals that end in NUL and live for ever. What is mapped or
    // opened belongs to nobody. Nothing is unmapped or written to, no protection is changed (the length is 0). A child
    // shares no memory with this process and goes no further than the next lines.
    let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    let result = Errno::result(result).map_err(io::Error::from)?;
    if call == libc::SYS_clone && result == 0 {
        crate::sys::child::exit(0);
    }
    Ok(())
}
