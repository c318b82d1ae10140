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
mod skip;
pub mod text;
pub mod trace;
pub mod versions;

#[allow(unused_imports, reason = "each test program uses its part of this")]
pub use skip::{skip, skip_for_kernel, skip_for_maintainers};
