//! A QMQP server: it receives one message per connection, puts it durably into the mail queue, and then replies.
//!
//! The rooms stand here, highest first. A room imports rooms below it only (`tests/layers.rs`). The pages that comments
//! cite are in `tests/spec`: what Postfix does, and a numbered list of deliberate differences.

// The fuzz targets (tests/fuzz), and tests over their inputs. No part of the program.
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod fuzzing;

// Starts the process, confines it, serves, and exits.
mod service;

// The commands for people: help, checks, explanations.
mod command;

// The command line.
mod options;

// One QMQP transaction in order, and all replies.
mod session;

// The reasons for an end without a served client, and the exit statuses.
mod exit;

// The ways to queue a message, and their verdict.
mod queue;

// The client's address and name.
mod peer;

// Whether a client is listed; tables.
mod lookup;

// How rights are given up.
mod jail;

// main.cf, and the list of parameters.
mod config;

// Bytes to values and back.
mod wire;

// The destination of log lines, which are made printable.
mod log;

// System calls and C library calls, in safe wrappers.
#[allow(unsafe_code, reason = "the one room that calls the C library")]
mod sys;

// How a unit test reports that it cannot run. No part of the program.
#[cfg(test)]
#[path = "../tests/harness/skip.rs"]
mod skip;

/// Runs the program, or the command of the command line. Returns the exit status.
pub fn run() -> u8 {
    service::run()
}

// Unit tests and the fuzzer have entry points of their own.
#[cfg(not(any(test, fuzzing)))]
sys::entry::entry_point!(run);
