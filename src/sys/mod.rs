//! System calls and C library calls, wrapped so that the other rooms are safe Rust.
//!
//! The only room with `unsafe`. Where nix has a safe wrapper, callers use nix. Postfix, QMQP and mail are left to the
//! other rooms.

pub mod alarm;
pub mod bytes;
pub mod capability;
pub mod child;
pub mod entry;
#[cfg(debug_assertions)]
pub mod escape;
pub mod inherit;
pub mod landlock;
pub mod memory;
pub mod name;
pub mod processor;
pub mod program;
pub mod regex;
pub mod seccomp;
pub mod socket;
pub mod time;
pub mod unfinished;
pub mod wakeup;

/// Ignores a result.
///
/// Allowed only if the process does the same after a failure as after a success, and no reply to a client depends on
/// it: the reader is gone (client, log, terminal), or a later step finds and reports the failure.
pub fn ignore<T, E>(_: Result<T, E>) {}
