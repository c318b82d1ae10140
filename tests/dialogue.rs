//! Every dialogue of `tests/dialogue` through our program. `QMQPD_DIALOGUE=part-of-a-name` runs only some.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;

use harness::requests::Numbers;
use harness::server::Server;
use harness::{dialogue, text};

#[test]
fn every_dialogue_goes_as_written() {
    dialogue::check(Server::Ours, &dialogue::all());
}

/// So that recording changes nothing but what has changed.
#[test]
fn every_dialogue_file_is_written_as_recording_writes_it() {
    for dialogue in dialogue::all() {
        let file = fs::read_to_string(&dialogue.path).unwrap();
        assert_eq!(dialogue.text(), file, "{}", dialogue.path.display());
    }
}

#[test]
fn bytes_that_are_shown_read_as_the_same_bytes() {
    let mut numbers = Numbers::new(1);
    for length in 0..300 {
        let few = numbers.below(256) + 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| u8::try_from(numbers.below(few)).unwrap())
            .collect();
        assert_eq!(text::read(&text::show(&bytes)).unwrap(), bytes);
    }
    assert_eq!(text::read("{ab*3}\\{\\x41").unwrap(), b"ababab{A");
    assert_eq!(text::show(&[b'a'; 16]), "{a*16}");
}
