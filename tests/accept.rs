//! `--accept`: a resident process of our own behind a launcher that listens.
//!
//! The launcher is what inetd(8) is with `wait`: it listens, and starts the program when a connection waits and the last
//! process has ended. The shipped files are started in `tests/launchers.rs`, crowds come in `tests/load.rs`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "accept/launcher.rs"]
mod launcher;
#[path = "accept/limits.rs"]
mod limits;
#[path = "accept/named.rs"]
mod named;
#[path = "accept/restart.rs"]
mod restart;
#[path = "accept/sockets.rs"]
mod sockets;
