//! Limits the time of the process on the processor. Waits do not count.
//!
//! At the limit comes SIGXCPU, whose handler removes an unfinished queue file and logs the end; a process that blocks
//! the signal is killed [`GRACE`] later. A lower limit of the launcher stays. Follows getrlimit(2). The limit is
//! `jail`'s.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};

use super::{seccomp, unfinished};

/// The time for the signal's handler.
const GRACE: u64 = 2;

/// Sets the limit, in whole seconds.
pub fn limit(total: Duration) -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CPU)?;
    let (soft, hard) = lower(total.as_secs(), soft, hard);
    setrlimit(Resource::RLIMIT_CPU, soft, hard)?;
    let handler = SigHandler::Handler(on_end_of_time);
    let action = SigAction::new(handler, SaFlags::SA_RESETHAND, unfinished::all());
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { sigaction(Signal::SIGXCPU, &action) }.map(drop)
}

extern "C" fn on_end_of_time(signal: libc::c_int) {
    unfinished::remove();
    seccomp::say(b"limit of processor time exceeded");
    unfinished::on_end(signal);
}

/// The new limits under those of the launcher. The signal comes before the kill if there is time.
fn lower(total: u64, soft: u64, hard: u64) -> (u64, u64) {
    let hard = hard.min(total.saturating_add(GRACE));
    let before = hard.saturating_sub(GRACE).max(1);
    (soft.min(total).min(before), hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_counts_and_the_signal_comes_first() {
        let none = libc::RLIM_INFINITY;
        for (soft, hard, expected) in [
            (none, none, (1000, 1002)),
            (1000, 1002, (1000, 1002)),
            (1001, 1003, (1000, 1002)),
            (999, none, (999, 1002)),
            (none, 1001, (999, 1001)),
            (10, 10, (8, 10)),
            (10, 20, (10, 20)),
            (1, 1, (1, 1)),
            (0, 0, (0, 0)),
        ] {
            assert_eq!(lower(1000, soft, hard), expected, "{soft} {hard}");
        }
    }
}
