//! The program as its users meet it: launchers, clients, administrators, the machine it runs on.
//!
//! What it says and hands over is for the dialogues to show. Here it is started as it will be, and watched: what it
//! may still do, what it costs, how long it lets others wait, where its lines go, and what a real Postfix has in its
//! queue afterwards.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "launch/confined.rs"]
mod confined;
#[path = "launch/content.rs"]
mod content;
#[path = "launch/deadline.rs"]
mod deadline;
#[path = "launch/descriptors.rs"]
mod descriptors;
#[path = "launch/destination.rs"]
mod destination;
#[path = "launch/escape.rs"]
mod escape;
#[path = "launch/hostname.rs"]
mod hostname;
#[path = "launch/launcher.rs"]
mod launcher;
#[path = "launch/machine.rs"]
mod machine;
#[path = "launch/memory.rs"]
mod memory;
#[path = "launch/names.rs"]
mod names;
#[path = "launch/queue.rs"]
mod queue;
#[path = "launch/relay.rs"]
mod relay;
#[path = "launch/reply.rs"]
mod reply;
#[path = "launch/rights.rs"]
mod rights;
#[path = "launch/tls.rs"]
mod tls;
#[path = "launch/upstream.rs"]
mod upstream;
