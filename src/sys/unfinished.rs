//! Removes an unfinished file when a signal ends the process, because a signal runs no destructor.
//!
//! The process then dies of the same signal, because launchers look at it: systemd counts SIGTERM, SIGHUP and SIGINT as
//! a clean end, and exit status 143 as a failure. SIGKILL and a crash leave the file. Follows signal(7) and
//! signal-safety(7). The file itself is left to `queue::file`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering::SeqCst};

use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction,
};
use nix::unistd::{UnlinkatFlags, getpid, unlinkat};

use super::child::exit;
use super::ignore;

/// The signals that end a process: from outside, at a panic (SIGABRT), or at its processor limit (SIGXCPU).
const SIGNALS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGXCPU,
    Signal::SIGABRT,
];

/// The longest name, in bytes. A queue id is less than half as long.
const NAME_LIMIT: usize = 63;

/// The exit status of a process that died of signal 0, as shells show it; the signal is added.
const DIED_OF: u8 = 128;

/// The process that has to remove the file; 0 means none. A fork has a copy of it, and must not remove the file.
static OWNER: AtomicI32 = AtomicI32::new(0);
static DIRECTORY: AtomicI32 = AtomicI32::new(-1);
/// The name and at least one NUL. Written only while `OWNER` is 0.
static NAME: [AtomicU8; NAME_LIMIT + 1] = [const { AtomicU8::new(0) }; NAME_LIMIT + 1];

/// Installs the handler. An ignored signal (SIGINT, by a shell for a background process) stays ignored, and removes
/// nothing.
pub fn catch() -> io::Result<()> {
    // The second signal ends the process.
    let action = SigAction::new(SigHandler::Handler(on_end), SaFlags::SA_RESETHAND, all());
    for signal in SIGNALS {
        // SAFETY: the handler calls only async-signal-safe functions.
        let before = unsafe { sigaction(signal, &action) }?;
        if matches!(before.handler(), SigHandler::SigIgn) {
            // SAFETY: ignoring a signal runs no code.
            unsafe { sigaction(signal, &before) }?;
        }
    }
    Ok(())
}

/// The signals that must not interrupt the handler.
pub(super) fn all() -> SigSet {
    SigSet::from_iter(SIGNALS)
}

/// Blocks the signals while it lives.
#[must_use]
pub struct Held(SigSet);

/// Blocks the signals. The code that makes, names or removes the file does so, so that the file and the stored name
/// agree.
pub fn hold() -> io::Result<Held> {
    Ok(Held(all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
}

impl Drop for Held {
    fn drop(&mut self) {
        // The mask comes from the kernel: it cannot fail.
        ignore(self.0.thread_set_mask());
    }
}

/// Makes the signals remove the file `name` of `directory`, which stays open until [`disarm`]. Signals must be blocked,
/// the file must exist, and no other file may be armed.
pub fn arm(_: &Held, directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    if name.len() > NAME_LIMIT {
        return Err(Errno::ENAMETOOLONG.into());
    }
    disarm();
    let bytes = name.bytes().chain(std::iter::repeat(0));
    for (to, from) in NAME.iter().zip(bytes) {
        to.store(from, SeqCst);
    }
    DIRECTORY.store(directory.as_raw_fd(), SeqCst);
    OWNER.store(getpid().as_raw(), SeqCst);
    Ok(())
}

/// Makes the signals remove nothing. Called before the file is completed: a leftover is better than a removed message.
pub fn disarm() {
    OWNER.store(0, SeqCst);
}

/// Removes the file, if one is armed here. Async-signal-safe.
pub fn remove() {
    if OWNER.swap(0, SeqCst) != getpid().as_raw() {
        return;
    }
    let mut name = [0; NAME_LIMIT + 1];
    for (to, from) in name.iter_mut().zip(&NAME) {
        *to = from.load(SeqCst);
    }
    // SAFETY: the directory is open until `disarm`, which is the obligation of the caller of `arm`.
    let directory = unsafe { BorrowedFd::borrow_raw(DIRECTORY.load(SeqCst)) };
    if let Ok(name) = CStr::from_bytes_until_nul(&name) {
        // One try: a leftover has mode 0600.
        ignore(unlinkat(
            directory.as_fd(),
            name,
            UnlinkatFlags::NoRemoveDir,
        ));
    }
}

/// The handler: removes the file, and ends the process by the signal. Async-signal-safe.
pub(super) extern "C" fn on_end(signal: libc::c_int) {
    remove();
    if let Ok(number) = Signal::try_from(signal) {
        // The signal is blocked in its handler, and has its default action again: it ends the process when the handler
        // returns.
        ignore(raise(number));
    }
    ignore(SigSet::empty().thread_set_mask());
    // Only process 1 of a container reaches this: no default action ends it.
    exit(u8::try_from(signal).map_or(u8::MAX, |signal| DIED_OF.saturating_add(signal)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;

    use nix::sys::signal::signal;
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::sys::child::{Fork, fork};

    const NAME: &str = "unfinished";

    /// The end of a process that has armed a file and runs `work`, and whether the file is still there.
    fn came_of(before: impl FnOnce(), work: impl FnOnce()) -> (WaitStatus, bool) {
        static COUNT: AtomicI32 = AtomicI32::new(0);

        let number = COUNT.fetch_add(1, SeqCst);
        let path = std::env::temp_dir().join(format!("qmqpd-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let directory: OwnedFd = File::open(&path).unwrap().into();
        let Fork::Parent { child } = fork().unwrap() else {
            // SIGABRT leaves no core.
            nix::sys::prctl::set_dumpable(false).unwrap();
            before();
            catch().unwrap();
            let held = hold().unwrap();
            File::create(path.join(NAME)).unwrap();
            arm(&held, directory.as_fd(), NAME).unwrap();
            drop(held);
            work();
            exit(7);
        };
        let status = waitpid(child, None).unwrap();
        let is_there = path.join(NAME).exists();
        fs::remove_dir_all(&path).unwrap();
        (status, is_there)
    }

    fn set(number: Signal, handler: SigHandler) {
        // SAFETY: callers pass SigDfl and SigIgn, which run no code of this process.
        unsafe { signal(number, handler) }.unwrap();
    }

    fn died(status: WaitStatus) -> Option<Signal> {
        if let WaitStatus::Signaled(_, number, _) = status {
            Some(number)
        } else {
            None
        }
    }

    #[test]
    fn each_signal_removes_the_file_and_is_what_the_process_dies_of() {
        for number in SIGNALS {
            let before = || set(number, SigHandler::SigDfl);
            let (status, is_there) = came_of(before, || raise(number).unwrap());
            assert_eq!((died(status), is_there), (Some(number), false));
        }
        let (status, is_there) = came_of(|| {}, || std::process::abort());
        assert_eq!((died(status), is_there), (Some(Signal::SIGABRT), false));
    }

    #[test]
    fn all_at_once_and_while_they_are_held() {
        let all_at_once = || {
            let held = hold().unwrap();
            for number in SIGNALS {
                raise(number).unwrap();
            }
            drop(held);
        };
        let (status, is_there) = came_of(|| set(Signal::SIGINT, SigHandler::SigDfl), all_at_once);
        assert!(
            died(status).is_some_and(|number| SIGNALS.contains(&number)),
            "{status:?}"
        );
        assert!(!is_there);
    }

    #[test]
    fn a_finished_file_is_left_alone_and_so_is_that_of_another_process() {
        let finished = || {
            disarm();
            raise(Signal::SIGTERM).unwrap();
        };
        let (status, is_there) = came_of(|| {}, finished);
        assert_eq!((died(status), is_there), (Some(Signal::SIGTERM), true));
        let forked = || match fork().unwrap() {
            Fork::Child { .. } => raise(Signal::SIGTERM).unwrap(),
            Fork::Parent { child } => drop(waitpid(child, None)),
        };
        let (status, is_there) = came_of(|| {}, forked);
        assert!(
            matches!(status, WaitStatus::Exited(_, 7)) && is_there,
            "{status:?}"
        );
    }

    #[test]
    fn a_signal_that_is_ignored_stays_so() {
        let before = || set(Signal::SIGINT, SigHandler::SigIgn);
        let (status, is_there) = came_of(before, || raise(Signal::SIGINT).unwrap());
        assert!(
            matches!(status, WaitStatus::Exited(_, 7)) && is_there,
            "{status:?}"
        );
    }

    #[test]
    fn a_name_has_a_limit() {
        let directory = File::open("/").unwrap();
        let Fork::Parent { child } = fork().unwrap() else {
            let held = hold().unwrap();
            let fits = arm(&held, directory.as_fd(), &"x".repeat(NAME_LIMIT)).is_ok();
            let is_owner = OWNER.load(SeqCst) == getpid().as_raw();
            let one_more = arm(&held, directory.as_fd(), &"x".repeat(NAME_LIMIT + 1));
            exit(u8::from(!(fits && is_owner && one_more.is_err())));
        };
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }
}
