//! System calls and C library calls, wrapped so that the rest of the program can be safe Rust.
//!
//! The only room that may say `unsafe`. Where nix has a safe wrapper, callers use nix and nothing stands here. Knows
//! nothing of Postfix, QMQP or mail.

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

/// Ignores whether something worked, and drops what came of it.
///
/// Allowed only where the process does the same after a failure as after a success, and no reply to a client depends on it.
/// Either the failure means that the reader is gone (client, log, terminal), or a later step finds it and reports it.
pub fn ignore<T, E>(_: Result<T, E>) {}
