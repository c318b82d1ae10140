//! How a test says that it cannot run here. `scripts/test` names such tests at its end.
//!
//! The integration tests have this file from the harness, the unit tests from `src/lib.rs`.
#![allow(dead_code, reason = "each test program uses its part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

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

/// The same where a script for maintainers makes what the test needs. With `CI=true` that is named, too, and is no failure.
pub fn skip_for_maintainers(test: &str, reason: &str) {
    not_run(&format!("skipped for maintainers: {test}: {reason}\n"));
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
