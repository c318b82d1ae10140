//! Limits blocking calls by alarm(2).
//!
//! `Read` and `Write` helpers of the standard library repeat a call after EINTR; so each wait for another process uses
//! [`Bounded`], which returns `TimedOut` when its time is over. There is one timer, for the wait that was armed last;
//! [`aside`] restores it afterwards, and [`limit_process`] limits every wait. Follows alarm(2) and sigaction(2). The
//! limits themselves are left to the callers.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static EXPIRED: AtomicBool = AtomicBool::new(false);
static FORBIDDEN: AtomicBool = AtomicBool::new(false);
static PROCESS_ENDS: OnceLock<Instant> = OnceLock::new();

extern "C" fn on_alarm(_: libc::c_int) {
    EXPIRED.store(true, Relaxed);
    // SAFETY: alarm is async-signal-safe and takes no pointer.
    unsafe { libc::alarm(1) };
}

/// Installs the handler. Without it an alarm ends the process.
///
/// The handler has no SA_RESTART, so that a waiting call returns EINTR. It sets the next alarm one second ahead,
/// because a signal just before the call begins to wait would be lost, and the wait would not end.
pub fn init() -> nix::Result<()> {
    let handler = SigHandler::Handler(on_alarm);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { sigaction(Signal::SIGALRM, &action) }.map(drop)
}

/// Stops an alarm that the launcher has left. An error means that the launcher forbids alarm(2), so that no wait would
/// end: the C library's function returns no error, and sets errno. Unlike Postfix, which serves without its watchdog,
/// the caller does not serve (`tests/spec/differences.md`, 48).
pub fn try_out() -> nix::Result<()> {
    Errno::clear();
    disarm();
    match Errno::last_raw() {
        0 => Ok(()),
        number => {
            FORBIDDEN.store(true, Relaxed);
            Err(Errno::from_raw(number))
        }
    }
}

/// Whether [`try_out`] has found that there are no alarms.
pub fn is_forbidden() -> bool {
    FORBIDDEN.load(Relaxed)
}

/// Sets the time after which every wait of this process ends. The first call counts.
pub fn limit_process(total: Duration) {
    if let Some(end) = Instant::now().checked_add(total) {
        PROCESS_ENDS.get_or_init(|| end);
    }
}

pub fn process_is_over() -> bool {
    PROCESS_ENDS.get().is_some_and(|end| Instant::now() >= *end)
}

/// Starts the timer for the next wait: after `limit` (rounded up to a second, at least one) a blocking call returns
/// EINTR, and [`expired`] is true.
pub fn arm(limit: Duration) {
    let left = PROCESS_ENDS.get().map_or(limit, |end| {
        limit.min(end.saturating_duration_since(Instant::now()))
    });
    EXPIRED.store(false, Relaxed);
    nix::unistd::alarm::set(whole_seconds(left));
}

/// Rounds up. An alarm of zero seconds is no alarm, so at least one.
fn whole_seconds(limit: Duration) -> u32 {
    let whole = limit
        .as_secs()
        .saturating_add(u64::from(limit.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

/// Whether the wait that was armed last has used up its time.
pub fn expired() -> bool {
    EXPIRED.load(Relaxed)
}

/// Stops the timer.
pub fn disarm() {
    nix::unistd::alarm::cancel();
    EXPIRED.store(false, Relaxed);
}

/// Repeats one blocking system call until it succeeds, fails, or `limit` is over (`TimedOut`).
pub fn bounded<T>(limit: Duration, call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    arm(limit);
    until_expired(call)
}

/// The same as [`bounded`], during another wait or between two: an earlier alarm is set again for the rest of its time.
/// The end of the process's time does not shorten `limit`.
pub fn aside<T>(limit: Duration, call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    if is_forbidden() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let begin = Instant::now();
    let had_expired = EXPIRED.swap(false, Relaxed);
    let interrupted = nix::unistd::alarm::set(whole_seconds(limit));
    let result = until_expired(call);
    match interrupted {
        None => nix::unistd::alarm::cancel(),
        Some(seconds) => {
            let left = Duration::from_secs(seconds.into()).saturating_sub(begin.elapsed());
            nix::unistd::alarm::set(whole_seconds(left))
        }
    };
    EXPIRED.store(had_expired, Relaxed);
    result
}

fn until_expired<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) if expired() => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// A descriptor on which each read, and each write in all its pieces together, waits for `limit` at most.
#[derive(Debug)]
pub struct Bounded {
    pub fd: OwnedFd,
    pub limit: Duration,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The shortest alarm is a second: a client that sends a byte more often would never meet one.
        if process_is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        bounded(self.limit, || nix::unistd::read(self.fd.as_fd(), buffer))
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bounded(self.limit, || nix::unistd::write(self.fd.as_fd(), bytes))
    }

    /// The standard library's write_all would give each piece a time of its own.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        arm(self.limit);
        while !bytes.is_empty() {
            match nix::unistd::write(self.fd.as_fd(), bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if expired() && !bytes.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::child::tests::alone;

    /// The first alarm comes before the wait, which must end all the same, before another process ends it. In a process
    /// of its own, because alarms reach any thread.
    #[test]
    fn an_alarm_just_before_a_wait_is_not_lost() {
        assert!(alone(|| {
            let (silent, open) = nix::unistd::pipe().unwrap();
            let mut holder = Command::new("sleep").arg("5").stdout(open).spawn().unwrap();
            let result = bounded(Duration::from_secs(1), || {
                while !expired() {
                    std::hint::spin_loop();
                }
                nix::unistd::read(&silent, &mut [0])
            });
            holder.kill().unwrap();
            holder.wait().unwrap();
            result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
        }));
    }

    #[test]
    fn a_wait_aside_gives_the_timer_back() {
        assert!(alone(|| {
            let (silent, _open) = nix::unistd::pipe().unwrap();
            let wait = || nix::unistd::read(&silent, &mut [0]);
            let begin = Instant::now();
            arm(Duration::from_secs(20));
            let kind = aside(Duration::from_secs(1), wait).map_err(|error| error.kind());
            let took = begin.elapsed();
            let left = nix::unistd::alarm::cancel();
            kind == Err(io::ErrorKind::TimedOut)
                && (Duration::from_secs(1)..Duration::from_secs(9)).contains(&took)
                && !expired()
                && left.is_some_and(|left| (10..20).contains(&left))
                // Without an earlier alarm there is none afterwards.
                && aside(Duration::from_secs(1), || Ok(())).is_ok()
                && nix::unistd::alarm::cancel().is_none()
        }));
    }

    /// Each piece comes in time; all of them together do not.
    #[test]
    fn a_write_in_pieces_has_the_time_of_one() {
        assert!(alone(|| {
            let (output, input) = nix::unistd::pipe().unwrap();
            let mut bounded = Bounded {
                fd: input,
                limit: Duration::from_secs(2),
            };
            let begin = Instant::now();
            let mut slow = Command::new("sh");
            slow.args(["-c", "while sleep 0.2; do head -c 4096 >/dev/null; done"]);
            let mut slow = slow.stdin(output).spawn().unwrap();
            let result = bounded.write_all(&vec![b'x'; 4_000_000]);
            let took = begin.elapsed();
            slow.kill().unwrap();
            slow.wait().unwrap();
            result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
                && (Duration::from_secs(2)..Duration::from_secs(4)).contains(&took)
        }));
    }
}
