//! qmqpd: a QMQP server, one confined process per connection. See `lib.rs` for the rooms, and for the entry point.
#![no_main]
#![forbid(unsafe_code)]

use qmqpd as _;
