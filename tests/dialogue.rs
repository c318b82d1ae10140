//! Every dialogue of `tests/dialogue` through our program. `QMQPD_DIALOGUE=part-of-a-name` runs only some.
#![forbid(unsafe_code)]

mod harness;

use harness::dialogue;
use harness::server::Server;

#[test]
fn every_dialogue_goes_as_written() {
    dialogue::check(Server::Ours, &dialogue::all());
}
