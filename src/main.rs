//! qmqpd: a QMQP server, one confined process per connection. See `lib.rs` for the rooms.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    qmqpd::main()
}
