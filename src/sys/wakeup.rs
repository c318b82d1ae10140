//! Signals that can be waited for together with descriptors, so that none is lost.
//!
//! They are blocked and read from a descriptor. A forked child has them blocked too, until it calls [`Wakeups::leave`].
//! Follows signalfd(2). What a signal means is left to `service`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals of this process, by a descriptor that is readable when one has come.
#[derive(Debug)]
pub struct Wakeups(SignalFd);

impl Wakeups {
    /// Blocks these signals and makes them readable. Their actions become the default ones: an ignored signal never
    /// comes.
    pub fn catch(signals: &[Signal]) -> nix::Result<Wakeups> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&set, flags).map(Wakeups)
    }

    /// The next signal. Several of a kind may come as one.
    pub fn next(&self) -> nix::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        let number = info.and_then(|info| i32::try_from(info.ssi_signo).ok());
        number.map(Signal::try_from).transpose()
    }

    /// In a child: gives signals their usual effect.
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
