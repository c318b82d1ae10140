//! Installs filters of system calls, and logs a call that a filter traps.
//!
//! Follows seccomp(2) and signal-safety(7). The content of a filter is left to `jail`.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// One instruction of a filter, in classic BPF (bpf(4)).
pub type Instruction = libc::sock_filter;

/// A filter's answers to a forbidden call: SIGSYS, EPERM as for a user without the right, or ENOSYS as for a missing
/// call. If two filters apply, the first of these in this order wins.
pub const TRAP: u32 = libc::SECCOMP_RET_TRAP;
pub const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
pub const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// SYS_SECCOMP: the code of a SIGSYS from a filter. Other processes may send the signal with another code.
const SYS_SECCOMP: libc::c_int = 1;

/// The longest line of the handler, which cannot allocate. A long syslog_name is cut.
const LINE_LIMIT: usize = 512;

/// The time that the handler waits for the log, in seconds.
const WRITE_LIMIT: libc::c_uint = 5;

/// The parts of the open log that the handler needs, prepared before.
#[derive(Debug)]
pub struct OpenLog {
    pub fd: RawFd,
    /// The text before a fatal message.
    pub prefix: Vec<u8>,
    /// The end of a line; empty for a datagram.
    pub ending: &'static [u8],
}

/// Replaced when a process adds another filter, and never freed: the handler may run at any time.
static OPEN_LOG: AtomicPtr<OpenLog> = AtomicPtr::new(ptr::null_mut());

/// The beginning of siginfo_t for SIGSYS on 64-bit machines; the libc package has no accessor for it.
#[repr(C)]
struct SigsysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *mut libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

/// Sets the open log, if there is one. A call that a filter traps is then logged as `system call N not allowed`, and
/// ends the process with status 1.
pub fn report_violations(log: Option<OpenLog>) -> nix::Result<()> {
    let log = log.map_or(ptr::null_mut(), |log| Box::into_raw(Box::new(log)));
    OPEN_LOG.store(log, Ordering::Release);
    let handler = SigHandler::SigAction(on_violation);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

extern "C" fn on_violation(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t, which is live during the handler, larger than SigsysInfo and begins like
    // it: three ints, then, at the alignment of a pointer, the fields of SIGSYS.
    let info = unsafe { info.cast::<SigsysInfo>().read() };
    if info.code == SYS_SECCOMP {
        say_line(|log| Line::about(info.call, log));
    }
    super::unfinished::remove();
    super::child::exit(1)
}

/// Logs a fatal message, if [`report_violations`] has set a log. Async-signal-safe.
pub(super) fn say(text: &[u8]) {
    say_line(|log| Line::with(log, |line| line.push(text)));
}

fn say_line(make: impl FnOnce(&OpenLog) -> Line) {
    // SAFETY: null, or what Box::into_raw gave, complete before it was stored and never freed.
    let Some(log) = (unsafe { OPEN_LOG.load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    let line = make(log);
    // One try: a log that does not take the line must not keep the process alive.
    // SAFETY: alarm is async-signal-safe and takes no pointer; its handler is installed.
    unsafe { libc::alarm(WRITE_LIMIT) };
    // SAFETY: write is async-signal-safe and reads `length` bytes of a live array that has at least as many.
    unsafe { libc::write(log.fd, line.bytes.as_ptr().cast(), line.length) };
}

/// A line put together without allocating.
struct Line {
    bytes: [u8; LINE_LIMIT],
    length: usize,
    /// The longest length.
    room: usize,
}

impl Line {
    /// The last line. A long prefix leaves room for the end of the line, without which a stream's reader sees no line.
    fn with(log: &OpenLog, text: impl FnOnce(&mut Line)) -> Line {
        let mut line = Line {
            bytes: [0; LINE_LIMIT],
            length: 0,
            room: LINE_LIMIT.saturating_sub(log.ending.len()),
        };
        line.push(&log.prefix);
        text(&mut line);
        line.room = LINE_LIMIT;
        line.push(log.ending);
        line
    }

    /// The line about a forbidden call.
    fn about(call: libc::c_int, log: &OpenLog) -> Line {
        Line::with(log, |line| {
            line.push(b"system call ");
            line.push_number(call);
            line.push(b" not allowed");
        })
    }

    fn push(&mut self, more: &[u8]) {
        let room = self.bytes.iter_mut().take(self.room);
        for (to, from) in room.skip(self.length).zip(more) {
            *to = *from;
            self.length += 1;
        }
    }

    fn push_number(&mut self, number: i32) {
        if number < 0 {
            self.push(b"-");
        }
        self.push_digits(number.unsigned_abs());
    }

    fn push_digits(&mut self, number: u32) {
        if number >= 10 {
            self.push_digits(number / 10);
        }
        self.push(&[b"0123456789"[(number % 10) as usize]]);
    }
}

/// Whether the kernel has filters, and the launcher's filter allows the question. Installs none.
pub fn is_available() -> bool {
    // SAFETY: with a null pointer the call installs nothing: it fails, with EFAULT if there are filters.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
            ptr::null::<libc::sock_fprog>(),
        )
    };
    Errno::result(status) == Err(Errno::EFAULT)
}

/// Installs a filter for the rest of this thread's life, in addition to earlier ones. The caller has set no_new_privs.
pub fn install(program: &[Instruction]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_too_long| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: sock_fprog is live and has a live array with its length; the kernel only reads both.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const program,
        )
    };
    Errno::result(status).map(drop)
}

/// Makes any system call, for tests of filters.
#[cfg(test)]
pub fn try_call(call: libc::c_long, arguments: [libc::c_long; 6]) -> nix::Result<libc::c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: tests pass calls that take no pointer, null pointers, or that the filter stops.
    let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    Errno::result(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(prefix: usize, ending: &'static [u8]) -> Vec<u8> {
        let log = OpenLog {
            fd: -1,
            prefix: vec![b'p'; prefix],
            ending,
        };
        let line = Line::about(-59, &log);
        line.bytes[..line.length].to_vec()
    }

    #[test]
    fn the_last_line_ends_as_the_log_wants_it_however_long_it_is() {
        assert_eq!(line(1, b""), b"psystem call -59 not allowed");
        assert_eq!(line(0, b"\0"), b"system call -59 not allowed\0");
        let text = b"system call -59 not allowed".len();
        for ending in [&b""[..], b"\n", b"\0"] {
            let room = LINE_LIMIT - text - ending.len();
            for (prefix, end) in [(room, &b"allowed"[..]), (room + 1, b"allowe"), (600, b"p")] {
                let line = line(prefix, ending);
                assert_eq!(line.len(), LINE_LIMIT);
                assert!(
                    line.ends_with(&[end, ending].concat()),
                    "{prefix} {ending:?}"
                );
            }
        }
    }
}
