//! Turns bytes into values and back, over `Read` and `Write`: QMQP on the client's side, attributes and records on
//! cleanup's.
//!
//! Knows formats and their limits. Descriptors, clocks, logs, and the meaning of a value for the queue are left to the
//! rooms above.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

pub mod address;
pub mod attr;
pub mod netstring;
pub mod proxy_header;
pub mod qmqp;
pub mod record;
pub mod verp;
