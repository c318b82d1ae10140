//! Services of a real Postfix: master(8) starts our program as it starts Postfix's own.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::net::TcpStream;

use harness::master::{self, Master};

#[test]
fn postfix_itself_serves() {
    if master::is_missing("postfix_itself_serves") {
        return;
    }
    let port = master::free_port();
    let master = Master::start("", &format!("{port} inet n - n - - qmqpd-postfix"));
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    let reply = master::send(TcpStream::connect(("::1", port)).unwrap(), &request).unwrap();
    assert_eq!(master.trouble(), Vec::<String>::new());
}
