//! The dialogues, and many requests made up by a generator, against Postfix's own qmqpd.
//!
//! `QMQPD_RECORD=1 cargo test --test postfix` writes what Postfix does into the dialogue files. Read them before
//! they are committed: what Postfix does is not always what we want.
#![forbid(unsafe_code)]

mod harness;

use harness::dialogue;
use harness::server::{self, Server};

/// Says why nothing is compared on this machine; with `CI=true` that is a failure.
fn postfix_is_missing(test: &str) -> bool {
    let Some(reason) = server::why_no_postfix() else {
        return false;
    };
    harness::skip(test, reason);
    true
}

#[test]
fn postfix_agrees_with_every_dialogue() {
    if postfix_is_missing("postfix_agrees_with_every_dialogue") {
        return;
    }
    let mut dialogues = dialogue::all();
    dialogues.retain(|dialogue| dialogue.unasked.is_none());
    if std::env::var_os("QMQPD_RECORD").is_some() {
        dialogue::record(&mut dialogues);
    } else {
        dialogue::check(Server::Postfix, &dialogues);
    }
}
