//! Signals that are waited for beside descriptors, so that none is lost between a look and a wait.
//!
//! They are blocked, and read from a descriptor. A child that the process forks has them blocked too, until it calls
//! [`Wakeups::leave`]. Authority: signalfd(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals of this process, by a descriptor that can be read when there is one.
#[derive(Debug)]
pub struct Wakeups(SignalFd);

impl Wakeups {
    /// From here on these signals do nothing else. Their actions are the default ones: an ignored signal never comes.
    pub fn catch(signals: &[Signal]) -> nix::Result<Wakeups> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&set, flags).map(Wakeups)
    }

    /// One that has come. Several of a kind may be one.
    pub fn next(&self) -> nix::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        let number = info.and_then(|info| i32::try_from(info.ssi_signo).ok());
        number.map(Signal::try_from).transpose()
    }

    /// In a child: signals do what they do to any process.
    pub fn leave() -> io::Result<()> {
        Ok(SigSet::empty().thread_set_mask()?)
    }
}

impl AsFd for Wakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::tests::alone;

    #[test]
    fn a_signal_before_the_wait_is_there_at_the_wait() {
        assert!(alone(|| {
            let caught = [Signal::SIGHUP, Signal::SIGTERM];
            let wakeups = Wakeups::catch(&caught).expect("signalfd");
            let before = wakeups.next();
            for signal in caught {
                nix::sys::signal::raise(signal).expect("raise");
            }
            let mut came = [(); 3].map(|()| wakeups.next().expect("read"));
            came.sort();
            before == Ok(None) && came == [None, Some(Signal::SIGHUP), Some(Signal::SIGTERM)]
        }));
    }
}
