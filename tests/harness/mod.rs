//! What the integration tests share: a machine in a directory on which a QMQP server can be run and watched.
//!
//! An [`instance`] is a main.cf and a queue directory of their own. A [`cleanup`] that does as it is told listens
//! there, and so does a [`maillog`] that keeps every line. [`server`] runs one connection of ours or of Postfix's
//! program between them, and [`dialogue`] reads from a file what a client says and what has to come of it.
//!
//! Nothing here knows how our program works inside; whatever it says of the protocol is said once more, on purpose.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each test program uses its part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

pub mod cleanup;
pub mod dialogue;
pub mod instance;
pub mod launchers;
pub mod lists;
pub mod maillog;
pub mod master;
pub mod outcome;
pub mod patience;
pub mod peers;
pub mod queue_file;
pub mod reading;
pub mod requests;
pub mod server;
pub mod sinks;
pub mod text;
pub mod trace;
pub mod versions;

use std::fs::OpenOptions;
use std::io::Write;

/// Says that `test` did not run and why, on standard error and at the end of the file that `QMQPD_SKIPPED` names.
/// With `CI=true` it fails instead.
pub fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} cannot run: {reason}"
    );
    not_run(&format!("skipped: {test}: {reason}\n"));
}

/// The same where it is the kernel that lacks something, which no package can bring. With `CI=true` that is named, too, and
/// is no failure.
pub fn skip_for_kernel(test: &str, reason: &str) {
    not_run(&format!("skipped for the kernel: {test}: {reason}\n"));
}

fn not_run(line: &str) {
    // Past the capture of the test runner, which would keep the line to itself.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("QMQPD_SKIPPED") {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
