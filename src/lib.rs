//! A QMQP server: one message per connection, put durably into the mail queue, answered only then.
//!
//! The rooms, highest first. A room uses only rooms that stand below it; `tests/layers.rs` holds them to it.

#![allow(dead_code, reason = "rooms are being furnished")]

mod config;
mod jail;
mod log;
mod lookup;
mod peer;
#[allow(unsafe_code, reason = "the one room that calls the C library")]
mod sys;
mod wire;

use std::process::ExitCode;

/// Runs the program that the command line asks for.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
