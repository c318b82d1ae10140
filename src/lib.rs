//! A QMQP server: one message per connection, put durably into the mail queue, answered only then.
//!
//! The rooms, highest first. A room uses only rooms that stand below it; `tests/layers.rs` holds them to it. The pages
//! that comments cite are in `tests/spec`: what Postfix does, and, in a list with numbers, what is done otherwise on
//! purpose.

// What a fuzzer runs (tests/fuzz), and the tests with what it has found. No part of the program.
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod fuzzing;

// How the process starts, is confined, serves and exits.
mod service;

// What people run themselves: help, checks, explanations.
mod command;

// What the command line asks for.
mod options;

// One QMQP transaction in order, and every reply a client can get.
mod session;

// Why the process ends without having served a client, and its exit statuses.
mod exit;

// The ways to hand a message over, and their one verdict.
mod queue;

// Who connected.
mod peer;

// Whether somebody is listed.
mod lookup;

// How to give rights up.
mod jail;

// main.cf, and the one table of parameters.
mod config;

// Bytes to values and back.
mod wire;

// Where a line goes, made printable.
mod log;

// System calls and C library calls, wrapped safely.
#[allow(unsafe_code, reason = "the one room that calls the C library")]
mod sys;

// How a unit test says that it cannot run. No part of the program.
#[cfg(test)]
#[path = "../tests/harness/skip.rs"]
mod skip;

/// Runs the program that the command line asks for, and returns its exit status.
pub fn run() -> u8 {
    service::run()
}

// The unit tests and the fuzzer have an entry point of their own.
#[cfg(not(any(test, fuzzing)))]
sys::entry::entry_point!(run);
