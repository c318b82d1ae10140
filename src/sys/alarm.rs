//! Deadlines for blocking calls, by alarm(2).
//!
//! The handler is installed without SA_RESTART, so that a call which waits returns EINTR, and it sets the next alarm
//! one second ahead: a signal that arrives just before the call begins to wait would otherwise be lost, and the wait
//! last for ever. `Read` and `Write` helpers of the standard library retry EINTR silently, so whatever waits for
//! another process goes through [`Bounded`], which turns "interrupted, and the time is over" into `TimedOut`.
//!
//! There is one timer, and it serves the wait that was armed last; [`aside`] gives it back afterwards. [`limit_process`]
//! cuts every other wait to what is left of the process's own time.

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

/// Installs the handler. Before this an alarm would end the process.
pub fn init() -> nix::Result<()> {
    let handler = SigHandler::Handler(on_alarm);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { sigaction(Signal::SIGALRM, &action) }.map(drop)
}

/// Stops an alarm that the launcher has left behind. An error means that the launcher forbids alarm(2), so that no wait
/// would end: the C library's function returns no error, and sets errno. Unlike Postfix, whose watchdog then never comes,
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

/// Sets the time after which every wait of this process is over, from now on. Only the first call counts.
pub fn limit_process(total: Duration) {
    if let Some(end) = Instant::now().checked_add(total) {
        PROCESS_ENDS.get_or_init(|| end);
    }
}

/// Whether the time set by [`limit_process`] is over.
pub fn process_is_over() -> bool {
    PROCESS_ENDS.get().is_some_and(|end| Instant::now() >= *end)
}

/// Starts the clock for the next wait: after `limit` (rounded up to a second, at least one) a blocking call returns
/// EINTR, and [`expired`] is true.
pub fn arm(limit: Duration) {
    let left = PROCESS_ENDS.get().map_or(limit, |end| {
        limit.min(end.saturating_duration_since(Instant::now()))
    });
    EXPIRED.store(false, Relaxed);
    nix::unistd::alarm::set(whole_seconds(left));
}

/// Rounded up; at least one, since an alarm of zero seconds is none.
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

/// Stops the clock.
pub fn disarm() {
    nix::unistd::alarm::cancel();
    EXPIRED.store(false, Relaxed);
}

/// Runs one blocking system call until it succeeds, fails, or `limit` is over (`TimedOut`).
pub fn bounded<T>(limit: Duration, call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    arm(limit);
    until_expired(call)
}

/// As [`bounded`], in the middle of another wait or between two: an alarm that was set before is set again afterwards, for
/// what is left of its time. The process's own end does not cut `limit`.
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

/// A descriptor on which each read waits no longer than `limit`, and each write, in however many pieces the other end takes
/// it.
#[derive(Debug)]
pub struct Bounded {
    pub fd: OwnedFd,
    pub limit: Duration,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The shortest alarm is a second: who sends a byte more often than that would never meet one.
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

    /// The standard library's would give each piece a time of its own.
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

    /// The first alarm goes off while nobody waits. The wait that begins after it must end all the same, before another
    /// process ends it; in a process of its own, since alarms reach any thread.
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
                // Where nothing was armed, nothing is afterwards.
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
